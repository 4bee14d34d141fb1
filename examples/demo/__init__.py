"""`make demo`: a cluster, a base model trained from nothing, a classifier from it, a report.

The rule of this room: it uses the project as a person would, through kubectl, helm, S3 and the
FineTune's status, and knows the operator's insides not at all. Its only data is the standard
library's documentation; nothing comes from a hub.
"""
