"""Object storage: S3, and the local folder of `finetune run`.

Only this package imports boto3. Its errors carry a problem, which `messages` renders for pods or
for the shell.
"""
