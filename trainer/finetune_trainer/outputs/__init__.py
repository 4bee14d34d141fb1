"""The outputs of a running training: the pod's log, its progress, and results.csv."""
