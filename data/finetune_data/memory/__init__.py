"""Estimates the memory of a training on GPUs and on their nodes, and chooses a plan that fits.

Pure: it imports no torch. The tests of the trainer compare it with what DeepSpeed and torch
allocate.
"""
