"""The trainer: what runs in the pods of the train Job, one launcher a pod, one worker a GPU.

The launcher (`__main__`, `launch`, `fetch`, `workers`) never imports torch: it fetches, starts the
workers, watches them, and says in the termination message what happened. A worker (`worker`,
`training`) trains. What can be computed without a machine is pure and stands apart: `batches`,
`loss`, `schedule`. DeepSpeed is known to `engine` alone, S3 through `finetune_storage.s3` alone.
torch, transformers and deepspeed are imported where they are used: they take seconds.
Nothing here knows Kubernetes, and nothing is unpickled.
"""
