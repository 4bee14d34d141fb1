"""The trainer's own training loop for a few steps on one rank, with the time of each step."""

from __future__ import annotations

import contextlib
import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from finetune_api.tasks import TrainTask
    from finetune_data.tokenize.dataset import TokenSplit
    from finetune_trainer.batching.order import Costs
    from finetune_trainer.engine.deepspeed import Engine


@dataclass(frozen=True)
class TimedRun:
    """The seconds and the real tokens of each step, and the checkpoints of the run."""

    seconds: list[float]
    tokens: list[int]
    copy_seconds: float
    upload_seconds: float
    checkpoints: int


def timed_run(
    task: TrainTask, engine: Engine, split: TokenSplit, costs: Costs, *, steps: int, folder: Path
) -> TimedRun:
    """Run `steps` steps as a rank does, with results.csv and checkpoints in the object storage.

    folder: for the copy of a checkpoint if the system has no files in memory.
    """
    from finetune_storage.connect import open_storage
    from finetune_trainer.checkpoint.state import TrainingState
    from finetune_trainer.checkpoint.store import Checkpoints
    from finetune_trainer.outputs.run_log import RunLog
    from finetune_trainer.progress import ProgressTracker
    from finetune_trainer.rank.checkpoint_policy import CheckpointPolicy
    from finetune_trainer.rank.sigterm import SigtermFlag
    from finetune_trainer.rank.training import Run, train
    from finetune_trainer.step.stepper import Stepper

    storage: Any = open_storage()
    progress = ProgressTracker(1, starting_detail=str)

    class CountingRunLog(RunLog):
        """Counts the complete checkpoints."""

        checkpoints = 0

        def record_checkpoint(self, state: TrainingState, seconds: float) -> None:
            self.checkpoints += 1
            super().record_checkpoint(state, seconds)

    run_log = CountingRunLog(task, engine.coordinates, progress, storage, has_validation=False)
    checkpoints = Checkpoints(
        *(task.run.layout, storage, engine, folder, 1),
        before_manifest=run_log.upload,
    )
    starts: list[float] = []
    tokens: list[int] = []

    class TimedStepper(Stepper):
        """Records the start of each step, and stops the run after the last one."""

        def accumulate(self, step: int, flags: Any = ()) -> Any:
            starts.append(time.perf_counter())
            if step > steps:
                raise StopIteration
            found = super().accumulate(step, flags)
            tokens.append(found[1].tokens)
            return found

    policy = CheckpointPolicy(
        *(checkpoints, run_log),
        ranks=1,
        is_first=True,
        seconds=task.checkpoint_seconds,
        saved_step=0,
    )
    run = Run(
        task=task,
        engine=engine,
        stepper=TimedStepper(task, engine, split, costs),
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
    return TimedRun(
        seconds=np.diff(starts).tolist(),
        tokens=tokens,
        copy_seconds=checkpoints.copy_seconds,
        upload_seconds=checkpoints.upload_seconds,
        checkpoints=run_log.checkpoints,
    )
