"""An S3 object as a stream of bytes that survives broken connections."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from finetune_storage.reads import ObjectReads
from finetune_storage.versions import ObjectEntry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

RESUMES = 5  # attempts to resume a stream without receiving a byte


class ObjectStream(io.RawIOBase):
    """Reads the object, or a part of it. `entry` is its version.

    Raises StorageError if the object cannot be read, or has another version than its first byte.
    """

    def __init__(self, reads: ObjectReads, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self._reads = reads
        self._position = start
        self._end = stop
        self._body = reads.get(start, stop)
        size = reads.entry.size
        self._stop = size if stop is None else min(stop, size)

    @property
    def entry(self) -> ObjectEntry:
        """The version that is read."""
        return self._reads.entry

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._stop - self._position)
        if wanted <= 0:
            return 0
        for resume in range(RESUMES + 1):
            try:
                chunk = self._body.read(wanted)
                if chunk:
                    view[: len(chunk)] = chunk
                    self._position += len(chunk)
                    return len(chunk)
                error: Exception = EOFError("the object ends early")
            except (BotoCoreError, HTTPError, OSError) as broken:
                error = broken
            if resume < RESUMES:
                with contextlib.suppress(Exception):
                    self._body.close()
                self._body = self._reads.get(self._position, self._end)
        raise self._reads.converted(error)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()
