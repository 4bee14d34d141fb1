"""The operator turns FineTunes into Jobs, and the results of the Jobs into a status and Events.

It uses no S3, Secrets, or finalizers on FineTunes. Each trigger runs the same function:
observe -> decide -> act -> one status write -> Events. The layers, each of which imports only the
ones below it:

- `main`: the process
- `handlers`: watches, work queue, reconcilers, and the recorder of Kubernetes Events
- `kube`: the Kubernetes API, and the progress endpoint of rank 0
- `telemetry`: Prometheus metrics
- `core`: decisions
- `messages`: the texts of Events, statuses, and errors
- `build`: manifests
- `settings`: the settings file
"""
