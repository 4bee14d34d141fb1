"""The history of a run over all its attempts, in `story.json` next to results.csv.

It holds the parts of a report that results.csv does not have. Every rank makes the same calls; only
rank 0 reads and writes. A history that cannot be stored is a warning and never fails the training.
"""

import contextlib
import time
from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationError

from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_storage.errors import StorageError
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer.reporting.report_data import Attempt, ThroughputPoint
from finetune_trainer.reporting.throughput import ThroughputLog

FILE = "story.json"
UNKNOWN_END = "The attempt ended without an error message: its pods were killed or a node was lost."


class HistoryRecord(Stored):
    """The content of `story.json`; every version of the trainer reads and writes this format."""

    kind: Literal["story"] = "story"
    attempts: list[Attempt] = Field(default_factory=list)
    speeds: list[ThroughputPoint] = Field(default_factory=list)
    before: list[str] | None = None  # completions of the sample prompts before training
    before_cut_at: int | None = None  # tokens, if those completions ended early


class RunHistory:
    """The record of earlier attempts and of this one."""

    def __init__(
        self,
        root: S3Uri,
        storage: Storage,
        *,
        attempt: int,
        processes: int,
        is_first: bool,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """root: the run's folder. processes: number of ranks. is_first: whether this is rank 0."""
        self._uri = root.child(FILE)
        self._storage = storage
        self._is_first = is_first
        self._warn = warn
        self._clock = clock
        self._earlier = HistoryRecord()
        self._attempt = Attempt(number=attempt, to_step=0, seconds=0, processes=processes)
        self._begin = clock()
        self._throughput = ThroughputLog(self._begin, 0)
        self.before: list[str] | None = None
        self.before_cut_at: int | None = None

    def begin(self, step: int, tokens: int) -> None:
        """Read the record of earlier attempts; training continues from `step` and `tokens`."""
        if self._is_first:
            self._earlier = _earlier_attempts(self._read(), self._attempt.number, step)
        self.before, self.before_cut_at = self._earlier.before, self._earlier.before_cut_at
        self._attempt = self._attempt.replace(from_step=step, to_step=step)
        self._begin = self._clock()
        self._throughput = ThroughputLog(self._begin, tokens)

    def record_step(self, step: int, tokens: int) -> None:
        """Record a finished step; tokens: trained on in total."""
        now = self._clock()
        self._throughput.add(step, now, tokens)
        seconds = round(now - self._begin, 3)
        self._attempt = self._attempt.replace(to_step=step, seconds=seconds)

    def save(self) -> None:
        """Write the record to S3: at the start, at the end of each epoch, and at the end."""
        if not self._is_first:
            return
        try:
            self._storage.write_bytes(self._uri, to_bytes(self.record))
        except StorageError as error:
            self._warn(f"could not store {FILE}: {error}")

    def end(self, cause: str | None) -> None:
        """Record the end of the attempt; cause: None if the training is complete."""
        self._attempt = self._attempt.replace(ended=cause)
        self.save()

    @property
    def record(self) -> HistoryRecord:
        """The record of all attempts so far."""
        return HistoryRecord(
            attempts=[*self._earlier.attempts, self._attempt],
            speeds=[*self._earlier.speeds, *self._throughput.points()],
            before=self.before,
            before_cut_at=self.before_cut_at,
        )

    def _read(self) -> HistoryRecord:
        with contextlib.suppress(StorageError, ValidationError):
            return HistoryRecord.model_validate_json(self._storage.read_bytes(self._uri))
        return HistoryRecord()


def _earlier_attempts(found: HistoryRecord, attempt: int, step: int) -> HistoryRecord:
    """The record without this attempt and without the throughput of steps that are repeated.

    An attempt that could not record its end has completed at least the steps up to the checkpoint
    from which this attempt continues.
    """
    attempts = [
        earlier
        if earlier.ended
        else earlier.replace(ended=UNKNOWN_END, to_step=max(earlier.to_step, step))
        for earlier in found.attempts
        if earlier.number != attempt
    ]
    speeds = [speed for speed in found.speeds if speed.step <= step]
    return found.replace(attempts=attempts, speeds=speeds)
