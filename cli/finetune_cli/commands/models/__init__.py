"""Commands for fine-tuned models: the Model objects of the cluster, and their files in S3."""
