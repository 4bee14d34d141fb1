"""The callers, and the API server as they see it."""
