"""One machine as a cluster: objects are files, pods are processes, and the operator decides.

`finetune serve` runs it: the gateway, the completion server, and the decisions of the operator,
with no Kubernetes. FineTunes, Models, and Jobs are the objects that a cluster has, so that every
state, message, and event is the same.
"""
