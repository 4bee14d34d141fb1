"""A one-node Kubernetes cluster for the demo, the tests, and CI, built from Go modules.

It needs no container engine. The package imports only the standard library and does not know the
product. Every process, mount, link, table, and cgroup has one name or is in one folder (`paths`).
Thus `down`, or the next `up` after a power failure, can find and remove all of them.
"""
