"""Stops an attempt when a newer one of the same run has started.

A node that loses its connection to the API server may still reach S3, so that its pods run next to
those of the next attempt. Each attempt has a marker in S3. Rank 0 looks for newer markers before it
writes anything. A write that was already on its way is recognized afterwards: the newer attempt's
marker has the step from which it continued.
"""

import re
from typing import Literal

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.layout import RunLayout
from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_storage.manifests import to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer import failures

_NAME = re.compile(r"attempt-(\d{1,9})\.json")


class AttemptMarker(Stored):
    """`markers/attempt-N.json`."""

    kind: Literal["attempt"] = "attempt"
    attempt: int
    from_step: int | None = None  # where its training began; None: it has written nothing yet


class AttemptFence:
    """The markers of a run, as one attempt sees them. Every method raises StorageError."""

    def __init__(self, layout: RunLayout, storage: Storage, attempt: int) -> None:
        self._layout = layout
        self._storage = storage
        self.attempt = attempt

    def begin(self) -> None:
        """Write this attempt's marker. Raises FailureError if a newer attempt has started."""
        self.check()
        self._write(AttemptMarker(attempt=self.attempt))

    def record_start(self, step: int) -> None:
        """Complete the marker, before the first step after `step` is trained."""
        self._write(AttemptMarker(attempt=self.attempt, from_step=step))

    def check(self) -> None:
        """Raise FailureError (PodLost) if a newer attempt has started."""
        newest = max(self._attempts(), default=0)
        if newest > self.attempt:
            raise FailureError(failures.superseded(self.attempt, newest))

    def is_late(self, attempt: int, step: int) -> bool:
        """Whether a checkpoint was completed after a newer attempt had continued without it.

        attempt: that wrote the checkpoint of the step. The newer attempt replaced results.csv, so
        that it may lack the rows up to that step.
        """
        for newer in (number for number in self._attempts() if number > attempt):
            marker = self._read(newer)
            if marker is not None and marker.from_step is not None and marker.from_step < step:
                return True
        return False

    def _attempts(self) -> list[int]:
        """The attempts that have a marker."""
        start = len(self._layout.markers.key) + 1
        names = (entry.key[start:] for entry in self._storage.list(self._layout.markers))
        return [int(found[1]) for name in names if (found := _NAME.fullmatch(name))]

    def _read(self, attempt: int) -> AttemptMarker | None:
        try:
            return AttemptMarker.model_validate_json(self._storage.read_bytes(self._uri(attempt)))
        except ValidationError:
            return None

    def _write(self, marker: AttemptMarker) -> None:
        self._storage.write_bytes(self._uri(marker.attempt), to_bytes(marker))

    def _uri(self, attempt: int) -> S3Uri:
        return self._layout.markers.child(f"attempt-{attempt}.json")
