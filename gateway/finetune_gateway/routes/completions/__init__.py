"""Completions: the endpoints, answers in one piece, and streams."""
