"""Rewrites data files: applies accepted fixes, and splits off validation data."""
