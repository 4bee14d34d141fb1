"""Decisions: pure functions from the observed state to a plan. No client, clock, or environment.

Each policy is a module named after its subject. Each verdict has a machine-readable reason and a
message from `finetune_operator.messages`, which conditions, Events, and errors show.
"""
