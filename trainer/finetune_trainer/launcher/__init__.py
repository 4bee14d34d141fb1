"""The launcher, one per pod: it downloads, starts one process per GPU, and reports the root cause.

It never imports torch, deepspeed, or transformers, which would cost each pod seconds and memory.
It does not import `rank`: it starts a rank by its command line and exchanges files (`workdir`).
"""
