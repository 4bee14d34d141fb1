"""Checks that a base model is one that can be trained, on meta tensors and without its weights.

The prepare Job runs it before a GPU is requested (`python -m finetune_trainer.base_check`), and
every rank runs it again while it loads the model. Both use the loader of `engine.loading`, so that
the check and the load cannot disagree. No module here imports DeepSpeed.
"""
