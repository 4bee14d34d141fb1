"""What a report must know besides results.csv, kept in S3 from one attempt to the next.

Every rank may call everything; the first alone reads and writes. Nothing here fails a training:
a story that can't be stored is a warning.
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

FILE = "story.json"  # beside results.csv
NO_WORD = "it ended without a word: killed, or its node was lost"


class Record(Stored):
    """`story.json`."""

    kind: Literal["story"] = "story"
    attempts: list[Attempt] = Field(default_factory=list)
    speeds: list[ThroughputPoint] = Field(default_factory=list)
    before: list[str] | None = None  # completions of the sample prompts by the base model


class RunHistory:
    """The record of former attempts, and what this one adds to it."""

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
        """root: of the run. processes: ranks. is_first: whether this is rank 0."""
        self._uri = root.child(FILE)
        self._storage = storage
        self._is_first = is_first
        self._warn = warn
        self._clock = clock
        self._former = Record()
        self._attempt = Attempt(number=attempt, to_step=0, seconds=0, processes=processes)
        self._begin = clock()
        self._speed = ThroughputLog(self._begin, 0)
        self.before: list[str] | None = None

    def begin(self, step: int, tokens: int) -> None:
        """Training goes on from `step`, with `tokens` trained on before. Reads former attempts."""
        if self._is_first:
            self._former = _told(self._read(), self._attempt.number, step)
        self.before = self._former.before
        self._attempt = self._attempt.replace(from_step=step, to_step=step)
        self._begin = self._clock()
        self._speed = ThroughputLog(self._begin, tokens)

    def stepped(self, step: int, tokens: int) -> None:
        """A step has ended; `tokens`: trained on in all."""
        now = self._clock()
        self._speed.add(step, now, tokens)
        seconds = round(now - self._begin, 3)
        self._attempt = self._attempt.replace(to_step=step, seconds=seconds)

    def save(self) -> None:
        """In S3 when this returns: with each checkpoint, and at the end."""
        if not self._is_first:
            return
        try:
            self._storage.write_bytes(self._uri, to_bytes(self.record))
        except StorageError as error:
            self._warn(f"{FILE} is not stored: {error}")

    def end(self, why: str | None) -> None:
        """The attempt is over; None: it came to its end."""
        self._attempt = self._attempt.replace(ended=why)
        self.save()

    @property
    def record(self) -> Record:
        """Of all attempts up to now."""
        return Record(
            attempts=[*self._former.attempts, self._attempt],
            speeds=[*self._former.speeds, *self._speed.points()],
            before=self.before,
        )

    def _read(self) -> Record:
        with contextlib.suppress(StorageError, ValidationError):
            return Record.model_validate_json(self._storage.read_bytes(self._uri))
        return Record()


def _told(found: Record, attempt: int, step: int) -> Record:
    """Without this attempt, and without speeds of steps that are made again.

    An attempt that could not say its end made at least the steps that this one goes on from.
    """
    attempts = [
        former if former.ended else former.replace(ended=NO_WORD, to_step=max(former.to_step, step))
        for former in found.attempts
        if former.number != attempt
    ]
    speeds = [speed for speed in found.speeds if speed.step <= step]
    return found.replace(attempts=attempts, speeds=speeds)
