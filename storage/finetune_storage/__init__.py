"""Object storage: S3, and the local folder of `finetune run`.

boto3 is imported here and nowhere else.
"""
