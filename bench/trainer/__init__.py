"""Compares the trainer with TRL and with plain DeepSpeed, and measures its checkpoints.

`sections`, `first_step`, and `checkpoints` are the sections of the table. They start the measured
programs in fresh processes: `subject` (the trainer), `trl_baseline`, `deepspeed_baseline`.
"""
