"""`make demo`: a cluster, a base model trained from random weights, a classifier, and a report.

The demo uses the project as a user does: through kubectl, helm, S3, and the status of a FineTune.
It does not know the internals of the operator. Its only data is the documentation of Python's
standard library, and it downloads nothing from a model hub.
"""
