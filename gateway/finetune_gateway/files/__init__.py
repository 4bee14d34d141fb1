"""Uploaded files, and the results of FineTunes, in S3."""
