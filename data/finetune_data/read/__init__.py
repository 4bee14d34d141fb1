"""Readers of every format, and the shapes of rows."""
