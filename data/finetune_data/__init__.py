"""The prepare Job, and the library below it: data files, checks, tokens, and base models.

The rules of this package: no torch (the prepare image has none, and its import takes seconds), and
no Kubernetes. A user's mistake is a `FailureError`, whose `Failure` says what happened, where, and
what to do. `models.hub` converts the exceptions of the Hugging Face hub, and `finetune_storage`
those of boto3. Text stays unchanged: it is never stripped, lower-cased, or normalized without a
fix that the user accepts. Memory grows by only a few bytes per row.
"""
