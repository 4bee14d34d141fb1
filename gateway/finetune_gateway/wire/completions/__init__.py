"""Completions: the bodies of requests, and the answers of the servers."""
