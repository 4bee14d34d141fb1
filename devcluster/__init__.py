"""A real one-node Kubernetes for the demo, the tests and CI, built from Go modules; no container
engine needed.

The rule of this room: it imports the standard library only and knows nothing of the product. What
it starts it can name, and what it can name it can remove: every process, mount, link, table and
cgroup lies under one name or one folder (`paths`), so that `down`, or the next `up` after a power
cut, leaves nothing behind.
"""
