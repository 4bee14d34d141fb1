"""The trainer beside TRL, bare DeepSpeed and itself without checkpoints."""
