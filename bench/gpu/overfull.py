"""A pod whose micro-batches have more tokens than fit, as if the estimate was wrong.

`python -m bench.gpu.overfull` is `python -m finetune_trainer` with ranks of this module. A CPU has
no memory of its own to exceed, so that a rehearsal raises torch's error for a micro-batch of more
than CARD_TOKENS.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

FACTOR = 1.8  # too many at first; half of them fit
CARD_TOKENS = 600  # of a rehearsal
REHEARSAL_SLOTS = 1024  # before the share of a later attempt


def pod() -> int:
    """Run the launcher, with ranks of this module."""
    from finetune_trainer.launcher import main, rank_processes

    rank_processes.RANK_MODULE = "bench.gpu.overfull"
    return main.main()


def rank(folder: Path) -> int:
    """Run a rank with larger micro-batches."""
    from finetune_trainer.engine import memory_budget
    from finetune_trainer.engine.deepspeed import Engine
    from finetune_trainer.rank import composition, main

    original = memory_budget.micro_batch_costs

    def overfull_costs(task: Any, engine: Any, longest: int) -> Any:
        memory_budget.GPU_SLOTS = sys.maxsize
        costs = original(task, engine, longest)
        slots = int(FACTOR * costs.slots)
        if task.accelerator == "cpu":
            slots = int(REHEARSAL_SLOTS * task.micro_batch_share)
        print(f"micro-batches of up to {slots:,} tokens", flush=True)
        return dataclasses.replace(costs, slots=slots)

    composition.micro_batch_costs = overfull_costs
    if os.environ.get("DS_ACCELERATOR") == "cpu":
        predict = Engine.predict

        def limited(engine: Any, batch: Any, prompt_weight: float) -> Any:
            if batch.inputs.size > CARD_TOKENS:
                import torch

                raise torch.OutOfMemoryError("CUDA out of memory (rehearsal)")
            return predict(engine, batch, prompt_weight)

        Engine.predict = limited
    return main.main(folder)


if __name__ == "__main__":
    is_pod = sys.argv[1].startswith("--")  # a rank has the working directory as its only argument
    code = pod() if is_pod else rank(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)  # as the trainer's own entry points
