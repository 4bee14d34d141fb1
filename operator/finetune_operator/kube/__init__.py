"""The Kubernetes API and rank 0's progress: the only place that talks to anything.

Async throughout; every answer becomes a plain dict or an ApiError here, at the edge.
"""
