"""One object of several: joined by the store, or through this process where a part is too small."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence

from finetune_api.uris import S3Uri
from finetune_gateway.files.content import Content
from finetune_gateway.files.object_upload import ObjectUpload
from finetune_gateway.files.workers import Workers, store_problems
from finetune_storage.errors import StorageError
from finetune_storage.multipart import LEAST_PART_BYTES
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry

logger = logging.getLogger(__name__)

BLOCK_BYTES = 2 * 2**20  # of a request, several copies of which are in memory for a moment


class Joining:
    """Objects of one bucket that become one. Every method raises Problem."""

    def __init__(
        self, storage: Storage, workers: Workers, bucket: str, entries: Sequence[ObjectEntry]
    ) -> None:
        """entries: of the objects, in their order. Each has at least a byte."""
        self._storage = storage
        self._workers = workers
        self._bucket = bucket
        self._entries = entries

    async def read(self, inspect: Callable[[bytes], None]) -> None:
        """Call `inspect` in a thread with all bytes in their order."""
        async for block in self._blocks():
            await self._workers.read(inspect, block)

    async def write(self, target: S3Uri) -> None:
        """Write the joined object."""
        if all(entry.size >= LEAST_PART_BYTES for entry in self._entries[:-1]):
            try:
                await self._copy(target)
            except StorageError as error:  # not every store can copy a part
                logger.warning("%s is joined by the gateway: %s", target, error)
            else:
                return
        upload = ObjectUpload(self._storage, self._workers, target)
        try:
            async for block in self._blocks():
                await upload.write(block)
            await upload.complete()
        except BaseException:
            await upload.abort()
            raise

    async def _copy(self, target: S3Uri) -> None:
        parts = self._storage.upload_parts(target)
        try:
            for entry in self._entries:
                await self._workers.write(parts.copy, S3Uri(self._bucket, entry.key))
            await self._workers.write(parts.complete)
        except BaseException:
            with store_problems():
                await self._workers.write(parts.abort)
            raise

    async def _blocks(self) -> AsyncIterator[bytes]:
        for entry in self._entries:
            uri = S3Uri(self._bucket, entry.key)
            content = Content(self._storage, self._workers, uri, entry, b"")
            async for block in content.blocks(BLOCK_BYTES):
                yield block
