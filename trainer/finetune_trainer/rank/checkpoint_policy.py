"""When to save a checkpoint: after each epoch, at intervals, and after SIGTERM."""

import time

from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.errors import Preempted
from finetune_trainer.outputs.run_log import RunLog

COPY_INTERVALS = 50  # the training waits for copies for at most a fiftieth of its time


class CheckpointPolicy:
    """Ranks agree through `flags`, summed with the step's losses: all save after the same step."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        run_log: RunLog,
        *,
        ranks: int,
        is_first: bool,
        seconds: float,
        saved_step: int,
    ) -> None:
        """seconds: between two checkpoints. saved_step: of the restored checkpoint, or 0."""
        self._checkpoints = checkpoints
        self._run_log = run_log
        self._ranks = ranks
        self._is_first = is_first
        self._seconds = seconds
        self._begun = time.monotonic()
        self._saved_step = saved_step

    def flags(self, *, is_stop_requested: bool) -> list[float]:
        """This rank's flags: a stop is requested, a checkpoint is due, and its upload has ended."""
        wait = max(self._seconds, COPY_INTERVALS * self._checkpoints.copy_seconds)
        is_due = (
            self._is_first
            and not self._checkpoints.is_saving
            and time.monotonic() - self._begun >= wait
        )
        return [float(is_stop_requested), float(is_due), float(self._checkpoints.has_ended)]

    def after_step(
        self, state: TrainingState, sums: list[float], *, is_epoch_end: bool, is_last: bool
    ) -> None:
        """Act on the sums of all ranks' flags.

        Raises Preempted after a checkpoint if a rank requested a stop before the last step.
        """
        stops, due, ended = sums
        if self._checkpoints.is_saving and ended == self._ranks:
            self._record(self._checkpoints.proceed())
        if is_epoch_end or stops or due:
            self.finish()
            self._checkpoints.begin(state)
            self._begun = time.monotonic()
            self._run_log.record_checkpoint_copy(self._checkpoints.copy_seconds)
        if stops and not is_last:
            self.finish()
            raise Preempted(state.step, self._saved_step or None)

    def finish(self) -> None:
        """Wait until no checkpoint is being saved."""
        self._record(self._checkpoints.finish())

    def _record(self, complete: TrainingState | None) -> None:
        if complete is not None:
            self._saved_step = complete.step
            self._run_log.record_checkpoint(complete, self._checkpoints.upload_seconds)
