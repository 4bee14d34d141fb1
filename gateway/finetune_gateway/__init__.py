"""OpenAI's fine-tuning API in front of FineTunes and Models.

The gateway translates, and the API server decides: each request to Kubernetes is made as the
caller. The gateway keeps no state. Files are objects in S3, jobs are FineTunes, and models are
Models, so that any number of replicas can run, in any order of restarts.

- `wire`: pure translations between OpenAI's objects and the custom resources.
- `kube`: the callers, and the API server as they see it.
- `files`: uploaded files in S3.
- `backends`: the servers that complete prompts.
- `process`: sockets, the certificate, probes, and metrics.
- `routes`: the endpoints, and `routes.app`, which gives every answer OpenAI's envelope.
"""
