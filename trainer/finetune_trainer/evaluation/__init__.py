"""Measurements of a model: class scores and metrics, and inference outside a training run."""
