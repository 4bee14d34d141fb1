"""The trainer runs in the pods of the train Job: one launcher per pod, one rank per GPU.

The launcher (`launcher`) downloads, starts the ranks, and reports the outcome in the termination
message. A rank (`rank`) trains. The packages are layers: `launcher` and `rank`, `publishing`,
`reporting`, `outputs`, `checkpoint` and `evaluation`, `step`, `engine`, `batching`. Only `engine`
imports DeepSpeed, and only `finetune_storage` accesses S3. torch, transformers, and DeepSpeed take
seconds to import, so modules import them where they use them; the launcher never does.
Nothing here accesses Kubernetes, and nothing is unpickled.
"""
