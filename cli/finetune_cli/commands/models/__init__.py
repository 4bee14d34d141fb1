"""Fine-tuned models: the cluster's Models, and their files in S3."""
