"""Checkpoints: each rank copies its fragments to host memory and uploads them in the background."""
