"""The model on a device. DeepSpeed is imported here and nowhere else."""
