"""The trainer's training loop on the workload, on one rank: `python -m bench.trainer.subject`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.machine import report
from bench.trainer import workload
from bench.trainer.task import build_task, free_port
from bench.trainer.timed_run import timed_run


def main() -> None:
    """Run steps as the trainer does, with results.csv and checkpoints in S3."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--padded", action="store_true", help="no packing")
    parser.add_argument("--checkpoint-seconds", type=float, default=1e9)
    measure(parser.parse_args())


def connect_alone(accelerator: str = "cpu") -> None:
    """Initialize torch.distributed with this process as the only rank, if it has not been yet."""
    import torch

    from finetune_trainer.engine.deepspeed import connect

    if torch.distributed.is_initialized():
        return
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    connect(accelerator)


def measure(options: argparse.Namespace) -> None:
    from finetune_trainer.engine.compute_path import choose_compute_path
    from finetune_trainer.engine.deepspeed import Engine, RankCoordinates
    from finetune_trainer.engine.loading import import_libraries, load_model
    from finetune_trainer.engine.memory_budget import micro_batch_costs

    import_libraries()
    split = workload.read(options.folder)
    task = build_task(
        examples=len(split),
        batch_size=options.batch,
        zero_stage=options.zero_stage,
        packing=not options.padded,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    model = load_model(options.folder / "model", "fp32")
    connect_alone()
    engine = Engine(
        *(model, RankCoordinates(0, 0, 1)),
        zero_stage=options.zero_stage,
        precision="fp32",
        weight_decay=0.0,
    )
    choose_compute_path(engine, longest=workload.LONGEST, warn=print, packing=task.packing)
    costs = micro_batch_costs(task, engine, workload.LONGEST)
    checkpoints = options.folder / "checkpoints"
    found = timed_run(task, engine, split, costs, steps=options.steps, folder=checkpoints)
    report(
        seconds=found.seconds[1:],
        tokens=found.tokens[1:],
        copy_seconds=found.copy_seconds,
        upload_seconds=found.upload_seconds,
        checkpoints=found.checkpoints,
    )


if __name__ == "__main__":
    main()
