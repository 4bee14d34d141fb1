"""Commands for the API keys of the gateway, which are entries of a Secret.

They use the rights of the kubeconfig: the gateway itself can neither read nor write the Secret. The
Secret has the SHA-256 of each key; no command reads a key from the cluster.
"""
