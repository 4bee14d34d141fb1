"""The model on its devices. Only this package imports DeepSpeed."""
