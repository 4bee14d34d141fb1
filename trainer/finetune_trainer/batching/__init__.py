"""Assigns examples to steps, ranks, and micro-batches. Pure NumPy, without torch."""
