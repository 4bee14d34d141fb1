"""Checkpoints: each rank's fragments are copied to host memory and uploaded in the background."""
