"""Uploads with limits: of one file, and of one part of a file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from finetune_gateway.files.inspection import Inspection, empty_file
from finetune_gateway.files.object_upload import ObjectUpload
from finetune_gateway.files.quota import Quota
from finetune_gateway.metrics import UPLOAD_BYTES
from finetune_gateway.wire.file_objects import StoredFile
from finetune_web.problems import Problem, invalid

logger = logging.getLogger(__name__)


class BoundedUpload:
    """An object that may have at most so many bytes. Call `close` at the end.

    Every method but `close` raises Problem.
    """

    def __init__(self, target: ObjectUpload, quota: Quota, most_bytes: int, refusal: Problem):
        """refusal: raised for the first byte that is too many."""
        self._target = target
        self._quota = quota
        self._most_bytes = most_bytes
        self._refusal = refusal
        self._taken = 0
        self._is_complete = False

    @property
    def size(self) -> int:
        return self._taken

    async def write(self, block: bytes) -> None:
        if self._taken + len(block) > self._most_bytes:
            raise self._refusal
        self._quota.take(len(block))
        self._taken += len(block)
        await self._target.write(block)

    async def complete(self, finish: Callable[[], None] | None = None) -> None:
        """Let the object appear. finish: called before, in a thread."""
        await self._target.complete(finish)
        self._is_complete = True

    async def close(self) -> None:
        """Leave nothing of an object that is not complete."""
        self._quota.settle(self._taken, is_stored=self._is_complete)
        if not self._is_complete:
            await self._target.abort()


class FileUpload:
    """A file that is inspected while it arrives. Every method raises Problem."""

    def __init__(self, file: StoredFile, inspection: Inspection, target: BoundedUpload) -> None:
        """file: as it will be, but for its size. target: which inspects what it stores."""
        self._file = file
        self._inspection = inspection
        self._target = target

    async def write(self, block: bytes) -> None:
        await self._target.write(block)

    async def complete(self) -> StoredFile:
        if not self._target.size:
            raise empty_file(self._file.name)
        await self._target.complete(self._inspection.finish)
        UPLOAD_BYTES.inc(self._target.size)
        file = replace(self._file, size=self._target.size)
        logger.info(
            "uploaded %s: %d bytes, sha256 %s", file.uri, file.size, self._inspection.digest
        )
        return file


def too_large(most_bytes: int, param: str = "file") -> Problem:
    return invalid(
        f"The file has more than {most_bytes:,} bytes, which is the limit. Split it, and train on "
        "several files, or ask an administrator for a larger limit (data.maxFileBytes).",
        param,
        "file_too_large",
    )
