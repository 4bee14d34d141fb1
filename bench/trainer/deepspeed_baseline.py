"""A plain DeepSpeed loop over the same micro-batches, to measure the overhead of the trainer."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import report
from bench.trainer import workload
from bench.trainer.subject import connect_alone


def main() -> None:
    """Run forward, backward, and step; the micro-batches are built before."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=0)
    options = parser.parse_args()
    import deepspeed
    import torch

    from finetune_trainer.batching import microbatch, order
    from finetune_trainer.engine import attention
    from finetune_trainer.engine.deepspeed import configuration
    from finetune_trainer.engine.loading import import_libraries, load_model
    from finetune_trainer.engine.objective import ComputePath, Objective, arguments

    import_libraries()
    attention.register()
    split = workload.read(options.folder)
    model = load_model(options.folder / "model", "fp32")
    connect_alone()
    objective = Objective(model)
    objective.choose(ComputePath(is_chunked=True, is_packed=True))
    made: list[Any] = []
    for step in range(1, options.steps + 2):
        examples = order.step_examples(len(split), options.batch, 1, step)
        batch = microbatch.assemble(split, examples.tolist(), packed=True, prompts=False)
        made.append((arguments(batch, 0.0, torch.device("cpu")), batch.weight(0.0)))
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True)
    engine, *_ = deepspeed.initialize(
        model=objective,
        optimizer=adam,
        config=configuration(
            zero_stage=options.zero_stage, precision="fp32", offload="none", ranks=1
        ),
    )
    ends = []
    for values, weight in made:
        ends.append(time.perf_counter())
        engine.backward(engine(*values)[0] / weight)
        engine.step()
    report(seconds=np.diff(ends).tolist()[1:])


if __name__ == "__main__":
    main()
