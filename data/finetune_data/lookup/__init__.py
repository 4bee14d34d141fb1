"""Finds a published model in S3; the entry point of a pod is `python -m finetune_data.lookup`."""
