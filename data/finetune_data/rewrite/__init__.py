"""Rewriting data files: accepted fixes, and the train/validation split."""
