"""The evaluation of a model: class scores, classification metrics, and inference on one prompt."""
