"""The shells around the decisions.

- `watches`: kopf's watches and the sweep, which add keys to the queue
- `workqueue`: keys with delays and priorities, each with one worker at a time
- `reconcile`: the reconciler of FineTunes, and the workers that take keys from the queue
- `reconcile_model`: the reconciler of Models
- `event_recorder`: posts Kubernetes Events after the status writes
"""
