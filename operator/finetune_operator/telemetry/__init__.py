"""Prometheus metrics of the operator, all in the registry of `request_metrics`."""
