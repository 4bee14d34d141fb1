"""When a checkpoint is made: at each epoch's end, now and then, and when the pods have to go."""

import time

from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.checkpoint.store import Checkpoints
from finetune_trainer.errors import Preempted
from finetune_trainer.outputs.run_log import RunLog

COPIES = 50  # the training waits for copies a fiftieth of its time at most


class CheckpointPolicy:
    """Every rank says what it wants before a step (`flags`); after it all do the same."""

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
        """seconds: between two checkpoints. saved_step: of the one that was restored, or 0."""
        self._checkpoints = checkpoints
        self._run_log = run_log
        self._ranks = ranks
        self._is_first = is_first
        self._seconds = seconds
        self._begun = time.monotonic()
        self._saved_step = saved_step

    def flags(self, *, is_asked_to_stop: bool) -> list[float]:
        """To be summed over the ranks: asked to stop, time for one, one has ended its part."""
        wait = max(self._seconds, COPIES * self._checkpoints.copy_seconds)
        is_time = (
            self._is_first
            and not self._checkpoints.is_saving
            and time.monotonic() - self._begun >= wait
        )
        return [float(is_asked_to_stop), float(is_time), float(self._checkpoints.has_ended)]

    def after_step(
        self, state: TrainingState, sums: list[float], *, is_epoch_end: bool, is_last: bool
    ) -> None:
        """Raises Preempted where any rank was asked to stop: the checkpoint is made before."""
        stops, times, ended = sums
        if self._checkpoints.is_saving and ended == self._ranks:
            self._tell(self._checkpoints.proceed())
        if is_epoch_end or stops or times:
            self.finish()
            self._checkpoints.begin(state)
            self._begun = time.monotonic()
            self._run_log.record_checkpoint_copy(self._checkpoints.copy_seconds)
        if stops and not is_last:
            self.finish()
            raise Preempted(state.step, self._saved_step or None)

    def finish(self) -> None:
        """Waits until nothing is on its way any more."""
        self._tell(self._checkpoints.finish())

    def _tell(self, complete: TrainingState | None) -> None:
        if complete is not None:
            self._saved_step = complete.step
            self._run_log.record_checkpoint(complete, self._checkpoints.upload_seconds)
