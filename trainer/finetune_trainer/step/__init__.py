"""One optimizer step, and one evaluation, over all ranks."""
