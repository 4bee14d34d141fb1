"""From a file or flags to a FineTune in the cluster: read, check, upload, create."""
