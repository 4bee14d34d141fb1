"""The bytes of an object, in blocks that belong to one version of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from finetune_api.uris import S3Uri
from finetune_gateway.files.workers import Workers, is_missing, store_problems
from finetune_storage.errors import StorageError
from finetune_storage.messages import StorageProblem
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry

BLOCK_BYTES = 2**19
TRIES = 3  # of an object that is replaced between two requests, as results.csv is by a training


@dataclass
class Content:
    """An object that exists, with its first block.

    Each block is a request of its own: a client that reads slowly holds no connection and no
    thread, so that hundreds of them need no more memory than a block each.
    """

    storage: Storage
    workers: Workers
    uri: S3Uri
    entry: ObjectEntry
    first: bytes

    @property
    def size(self) -> int:
        return self.entry.size

    async def blocks(self, size: int = BLOCK_BYTES) -> AsyncIterator[bytes]:
        """All bytes, once. Raises Problem if the object changes or disappears."""
        length = len(self.first)
        if length:
            block, self.first = self.first, b""  # it is not kept
            yield block
        for start in range(length, self.size, size):
            with store_problems():
                block = await self.workers.read(
                    self.storage.read_range, self.uri, start, size, self.entry
                )
            yield block


async def open_content(storage: Storage, workers: Workers, uri: S3Uri) -> Content | None:
    """The object's content; None if it does not exist. Raises Problem."""

    def begin() -> Content:
        entry = storage.head(uri)
        first = storage.read_range(uri, 0, min(BLOCK_BYTES, entry.size), entry)
        return Content(storage, workers, uri, entry, first)

    with store_problems():
        for is_last in [False] * (TRIES - 1) + [True]:
            try:
                return await workers.read(begin)
            except StorageError as error:
                if is_missing(error):
                    return None
                if error.problem is not StorageProblem.CHANGED or is_last:
                    raise
    raise AssertionError("the last try returns or raises")
