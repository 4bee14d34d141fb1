"""The hardware of the pod's node: driver, GPUs, and the links between them.

Everything here reports what it finds, and never fails because something is unknown: a file that is
missing or has another format gives None. Only `gpu_access` ends a run, when CUDA itself does not
work. Paths, libraries, and values are arguments, so that tests need no GPU.
"""
