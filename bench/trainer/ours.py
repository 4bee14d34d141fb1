"""The trainer's own pieces on the workload, on one rank: `python -m bench.trainer.ours …`."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import report
from bench.trainer.store import BUCKET
from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.tasks import BaseModelRef, MethodRef, RunRef, TrainTask
from finetune_data.tokenize.dataset import TokenSplit


def main() -> None:
    """Steps as `training.train` makes them, with results.csv and checkpoints in S3."""
    measure(parser().parse_args())


def parser() -> argparse.ArgumentParser:
    """What a run may be told."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--zero-stage", type=int, default=0)
    parser.add_argument("--padded", action="store_true", help="no packing")
    parser.add_argument("--checkpoint-seconds", type=float, default=1e9)
    parser.add_argument("--nvidia", action="store_true", help="on a GPU, in bf16")
    parser.add_argument("--lora", action="store_true", help="an adapter of rank 16")
    return parser


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def split_of(folder: Path) -> TokenSplit:
    """The workload as a dataset in memory."""
    tokens, roles, offsets = (np.load(folder / f"{n}.npy") for n in ("tokens", "roles", "offsets"))
    return TokenSplit(tokens, roles, offsets.astype(np.int64))


def task_of(options: argparse.Namespace, examples: int) -> TrainTask:
    return TrainTask(
        run=RunRef(
            namespace="bench", name="bench", uid=f"{os.getpid():08d}", output=f"s3://{BUCKET}/out"
        ),
        attempt=1,
        base=BaseModelRef(
            name="b", root="b", uri="s3://b/b", pretraining_learning_rate=1, context_length=1024
        ),
        dataset="s3://b/d",
        organization="bench",
        hyperparameters=ResolvedHyperparameters(
            n_epochs=50,
            batch_size=options.batch,
            learning_rate=1e-4,
            prompt_loss_weight=0.0,
            warmup_ratio=0.0,
            weight_decay=0.0,
            lr_schedule="constant",
            max_sequence_length=1024,
            seed=1,
        ),
        training_examples=examples,
        training_file="s3://b/t",
        nodes=1,
        processes_per_node=1,
        accelerator="nvidia" if options.nvidia else "cpu",
        method=MethodRef(type="lora" if options.lora else "full"),
        zero_stage=options.zero_stage,
        packing=not options.padded,
        checkpoint_seconds=options.checkpoint_seconds,
        master_host="127.0.0.1",
        master_port=1,
        progress_port=1,
    )


def connect_alone(accelerator: str = "cpu") -> None:
    """This process is the only rank."""
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
    split = split_of(options.folder)
    task = task_of(options, len(split))
    precision: Precision = "bf16" if options.nvidia else "fp32"
    model = load_model(options.folder / "model", precision)
    if options.lora:
        model = add_adapter(model, task.method, 1)
    connect_alone(task.accelerator)
    place = RankCoordinates(0, 0, 1)
    engine = Engine(
        model, place, zero_stage=options.zero_stage, precision=precision, weight_decay=0.0
    )
    choose_compute_path(engine, longest=1024, warn=print, packing=task.packing)
    storage: Any = open_storage()
    progress = ProgressTracker(1, starting_detail=str)

    class Told(RunLog):
        """Counts the checkpoints that are complete."""

        checkpoints = 0

        def record_checkpoint(self, state: TrainingState, seconds: float) -> None:
            self.checkpoints += 1
            super().record_checkpoint(state, seconds)

    run_log = Told(task, place, progress, storage, has_validation=False)
    if options.nvidia:  # no S3 server beside a GPU; its steps take far longer than a row
        run_log._results = None
    checkpoints = Checkpoints(
        *(task.run.layout, storage, engine, options.folder / "checkpoints", 1),
        before=run_log.upload,
    )
    ends: list[float] = []
    tokens: list[int] = []

    class Watched(Stepper):
        """Notes when each step begins, and stops the run after enough of them."""

        def accumulate(self, step: int, flags: Any = ()) -> Any:
            ends.append(time.perf_counter())
            if step > options.steps:
                raise StopIteration
            found = super().accumulate(step, flags)
            tokens.append(found[1].tokens)
            return found

    saving = CheckpointPolicy(
        *(checkpoints, run_log),
        ranks=1,
        is_first=True,
        seconds=options.checkpoint_seconds,
        saved_step=0,
    )
    run = Run(
        task=task,
        engine=engine,
        stepper=Watched(task, engine, split, micro_batch_costs(task, engine, 1024)),
        evaluation=None,
        classifier=None,
        saving=saving,
        run_log=run_log,
        stop=SigtermFlag(is_training=lambda: True),
    )
    run_log.start(TrainingState())
    gc.collect()
    gc.freeze()
    with contextlib.suppress(StopIteration):
        train(run, TrainingState())
    saving.finish()
    run_log.close()
    seconds = np.diff(ends).tolist()
    share = Gpu(task, engine, split).utilization(1.0) if options.nvidia else None
    report(
        seconds=seconds[1:],
        tokens=tokens[1:],
        copy_seconds=checkpoints.copy_seconds,
        upload_seconds=checkpoints.upload_seconds,
        checkpoints=run_log.checkpoints,
        utilization_of_a_token=share,
    )


if __name__ == "__main__":
    main()
