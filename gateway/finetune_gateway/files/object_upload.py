"""An object that is written while its bytes arrive. At most two parts of it are in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from finetune_api.uris import S3Uri
from finetune_gateway.files.workers import Workers, store_problems
from finetune_storage.errors import StorageError
from finetune_storage.s3 import Storage

logger = logging.getLogger(__name__)

PART_BYTES = 8 * 2**20

Inspect = Callable[[bytes], None]


class ObjectUpload:
    """An object that appears when it is complete. It leaves nothing if it is aborted.

    Every method but `abort` raises Problem, and `abort` must follow then.
    """

    def __init__(
        self, storage: Storage, workers: Workers, uri: S3Uri, inspect: Inspect | None = None
    ) -> None:
        """inspect: called in a thread with the bytes in their order, before they are stored."""
        self.uri = uri
        self.size = 0
        self._storage = storage
        self._workers = workers
        self._inspect = inspect
        self._parts = storage.upload_parts(uri)
        self._blocks: list[bytes] = []
        self._waiting = 0  # bytes in the blocks
        self._has_parts = False
        self._task: asyncio.Task[None] | None = None  # stores the part before

    async def write(self, block: bytes) -> None:
        self._blocks.append(block)
        self._waiting += len(block)
        self.size += len(block)
        if self._waiting >= PART_BYTES:
            data = self._take()
            await self._stored()
            self._has_parts = True
            self._task = asyncio.create_task(self._workers.write(self._store, data))

    async def complete(self, finish: Callable[[], None] | None = None) -> None:
        """Store the rest, and let the object appear.

        finish: called in a thread after all bytes were inspected, before the object appears.
        """
        await self._stored()
        with store_problems():
            await self._workers.write(self._complete, self._take(), finish)

    async def abort(self) -> None:
        """Delete what is stored. An error is only logged: a later pass finds what remains."""
        self._take()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await asyncio.shield(self._workers.write(self._abort))

    async def _stored(self) -> None:
        """Wait until the part before is stored."""
        if self._task is not None:
            task, self._task = self._task, None
            with store_problems():
                await task

    def _take(self) -> bytes:
        data = b"".join(self._blocks)
        self._blocks.clear()
        self._waiting = 0
        return data

    def _store(self, data: bytes) -> None:
        if self._inspect is not None:
            self._inspect(data)
        self._parts.add(data)

    def _complete(self, data: bytes, finish: Callable[[], None] | None) -> None:
        if self._inspect is not None:
            self._inspect(data)
        if finish is not None:
            finish()
        if not self._has_parts:
            self._storage.write_bytes(self.uri, data)
            return
        if data:
            self._parts.add(data)
        self._parts.complete()

    def _abort(self) -> None:
        try:
            self._parts.abort()
        except StorageError as error:
            logger.warning("an unfinished upload remains at %s: %s", self.uri, error)
