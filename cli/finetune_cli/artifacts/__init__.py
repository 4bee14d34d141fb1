"""Results and models in S3."""
