"""Follows a FineTune: its events line by line, its progress in a live line, and its result."""
