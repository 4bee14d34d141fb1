"""The Kubernetes API and the progress endpoint of rank 0: all input and output of the operator.

Everything is asynchronous. Each answer becomes a plain dict or an ApiError here.
"""
