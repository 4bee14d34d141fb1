"""Deletes expired uploads, and the parts of uploads that a killed gateway has left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from finetune_api.uris import S3Uri
from finetune_gateway.files.workers import Workers
from finetune_gateway.wire.uploads import is_upload_id, upload_time
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage

logger = logging.getLogger(__name__)

EVERY_SECONDS = 600.0
SWEPT_AFTER = timedelta(hours=2)  # when nothing of an upload is needed any more
MOST_DELETIONS = 500  # at once


class Sweep:
    """Runs with uploads, because the gateway keeps no state and no replica leads."""

    def __init__(
        self,
        storage: Storage,
        workers: Workers,
        space: S3Uri,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """space: the prefix of a namespace's files."""
        self._storage = storage
        self._workers = workers
        self._space = space
        self._now = now
        self._clock = clock
        self._last: float | None = None

    async def run_if_due(self) -> None:
        """At most once in ten minutes. An error is only logged: the next pass is soon."""
        if self._last is not None and self._clock() - self._last < EVERY_SECONDS:
            return
        self._last = self._clock()
        try:
            await self._workers.write(self._run)
        except StorageError as error:
            logger.warning("expired uploads remain: %s", error)

    def _run(self) -> None:
        self._storage.abort_uploads(self._space)
        prefix = self._space.child("uploads")
        left = MOST_DELETIONS
        for page in self._storage.pages(prefix):
            expired = [entry.key for entry in page if self._is_expired(entry.key, prefix)]
            for key in expired[:left]:
                self._storage.delete(S3Uri(prefix.bucket, key))
            left -= len(expired)
            if left <= 0 or not expired:  # keys are sorted by time: no later page has any
                return

    def _is_expired(self, key: str, prefix: S3Uri) -> bool:
        upload_id = key[len(prefix.key) + 1 :].partition("/")[0]
        return is_upload_id(upload_id) and self._now() - upload_time(upload_id) > SWEPT_AFTER
