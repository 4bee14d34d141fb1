"""Checks and measures the trainer on one GPU; `--rehearse` runs the same parts on a CPU.

`parts` lists the parts, most valuable first. `__main__` runs each in a process of its own (`part`),
and `results` appends what they report to one JSON file. `roofline` computes the limits from the
kernels that a step needs, `table` prints both, and `requirements` and `wheels` prepare a machine
without a network.
"""
