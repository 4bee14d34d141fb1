"""Training results, models, and base models, in S3 or on this machine."""
