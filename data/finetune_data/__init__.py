"""The prepare Job and the library under it: S3, base models, data, tokens.

The rules of this room: no torch (the prepare image has none, and importing it costs seconds), no
Kubernetes. A user's mistake is a `FailureError` whose `Failure` says what, where and what to do;
exceptions of boto3 and of the hub end at the edge, in `storage` and `base_models`. Text stays
text: nothing is stripped, lower-cased or normalized. Memory does not grow with the file, but for
a few bytes a row.
"""
