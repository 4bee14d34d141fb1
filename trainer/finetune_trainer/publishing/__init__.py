"""The fine-tuned model in S3: written once, its manifest last."""
