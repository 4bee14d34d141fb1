"""The trainer's training loop on the workload, on one rank: `python -m bench.trainer.subject`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import report
from bench.trainer import workload
from bench.trainer.task import build_task, free_port


def main() -> None:
    """Run steps as the trainer does, with results.csv and checkpoints in S3."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--padded", action="store_true", help="no packing")
    parser.add_argument("--checkpoint-seconds", type=float, default=1e9)
    parser.add_argument("--nvidia", action="store_true", help="on a GPU, in bf16")
    parser.add_argument("--lora", action="store_true", help="an adapter of rank 16")
    measure(parser.parse_args())


def connect_alone(accelerator: str = "cpu") -> None:
    """Initialize torch.distributed with this process as the only rank."""
    from finetune_trainer.engine.deepspeed import connect

    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    connect(accelerator)


def measure(options: argparse.Namespace) -> None:
    from finetune_storage.connect import open_storage
    from finetune_trainer.checkpoint.state import TrainingState
    from finetune_trainer.checkpoint.store import Checkpoints
    from finetune_trainer.engine.compute_path import choose_compute_path
    from finetune_trainer.engine.deepspeed import Engine, Precision, RankCoordinates
    from finetune_trainer.engine.loading import import_libraries, load_model
    from finetune_trainer.engine.lora import add_adapter
    from finetune_trainer.engine.memory_budget import micro_batch_costs
    from finetune_trainer.engine.mfu import Gpu
    from finetune_trainer.outputs.run_log import RunLog
    from finetune_trainer.progress import ProgressTracker
    from finetune_trainer.rank.checkpoint_policy import CheckpointPolicy
    from finetune_trainer.rank.sigterm import SigtermFlag
    from finetune_trainer.rank.training import Run, train
    from finetune_trainer.step.stepper import Stepper

    import_libraries()
    split = workload.read(options.folder)
    task = build_task(
        examples=len(split),
        batch_size=options.batch,
        is_nvidia=options.nvidia,
        is_lora=options.lora,
        zero_stage=options.zero_stage,
        packing=not options.padded,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    precision: Precision = "bf16" if options.nvidia else "fp32"
    model = load_model(options.folder / "model", precision)
    if options.lora:
        model = add_adapter(model, task.method, 1)
    connect_alone(task.accelerator)
    coordinates = RankCoordinates(0, 0, 1)
    engine = Engine(
        model, coordinates, zero_stage=options.zero_stage, precision=precision, weight_decay=0.0
    )
    choose_compute_path(engine, longest=1024, warn=print, packing=task.packing)
    storage: Any = open_storage()
    progress = ProgressTracker(1, starting_detail=str)

    class CountingRunLog(RunLog):
        """Counts the complete checkpoints."""

        checkpoints = 0

        def record_checkpoint(self, state: TrainingState, seconds: float) -> None:
            self.checkpoints += 1
            super().record_checkpoint(state, seconds)

    run_log = CountingRunLog(task, coordinates, progress, storage, has_validation=False)
    if options.nvidia:  # a machine with a GPU has no S3 server, and a row takes no time there
        run_log._results = None
    checkpoints = Checkpoints(
        *(task.run.layout, storage, engine, options.folder / "checkpoints", 1),
        before_manifest=run_log.upload,
    )
    starts: list[float] = []
    tokens: list[int] = []

    class TimedStepper(Stepper):
        """Records the start of each step, and stops the run after the last one."""

        def accumulate(self, step: int, flags: Any = ()) -> Any:
            starts.append(time.perf_counter())
            if step > options.steps:
                raise StopIteration
            found = super().accumulate(step, flags)
            tokens.append(found[1].tokens)
            return found

    policy = CheckpointPolicy(
        *(checkpoints, run_log),
        ranks=1,
        is_first=True,
        seconds=options.checkpoint_seconds,
        saved_step=0,
    )
    run = Run(
        task=task,
        engine=engine,
        stepper=TimedStepper(task, engine, split, micro_batch_costs(task, engine, 1024)),
        evaluation=None,
        classifier=None,
        checkpoint_policy=policy,
        run_log=run_log,
        sigterm=SigtermFlag(is_training=lambda: True),
    )
    run_log.start(TrainingState())
    gc.collect()
    gc.freeze()
    with contextlib.suppress(StopIteration):
        train(run, TrainingState())
    policy.finish()
    run_log.close()
    seconds = np.diff(starts).tolist()
    share = Gpu(task, engine, split).utilization(1.0) if options.nvidia else None
    report(
        seconds=seconds[1:],
        tokens=tokens[1:],
        copy_seconds=checkpoints.copy_seconds,
        upload_seconds=checkpoints.upload_seconds,
        checkpoints=run_log.checkpoints,
        utilization_per_token=share,
    )


if __name__ == "__main__":
    main()
