"""Publishes the fine-tuned model to S3: once, with its manifest last."""
