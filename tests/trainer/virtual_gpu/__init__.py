"""Counts the bytes that DeepSpeed allocates, on a GPU that does not exist."""
