"""The launcher, one per pod: it downloads, starts one process per GPU, and reports the root cause.

It never imports torch, so that it costs a pod neither seconds nor memory.
"""
