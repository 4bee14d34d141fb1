"""Reads data files: from bytes to examples, and to findings about lines that are none."""
