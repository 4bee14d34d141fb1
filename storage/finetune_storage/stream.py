"""An S3 object as a stream of bytes that survives broken connections."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from finetune_storage.errors import StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

RESUMES = 5  # attempts to resume a stream without receiving a byte

# (first byte, the ETag that the object must still have; None at first) -> S3's answer
Fetch = Callable[[int, "str | None"], "GetObjectOutputTypeDef"]


class ObjectStream(io.RawIOBase):
    """Reads the object from start to end. `size` in bytes and `etag` are known immediately.

    Raises StorageError if the object cannot be read, or changes while it is read.
    """

    def __init__(self, fetch: Fetch, convert: Callable[[Exception], StorageError]) -> None:
        super().__init__()
        self._fetch = fetch
        self._convert = convert
        answer = fetch(0, None)
        self._body = answer["Body"]
        self.size = answer["ContentLength"]
        self.etag = answer["ETag"].strip('"')
        self._quoted_etag = answer["ETag"]
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._position >= self.size or not len(view):
            return 0
        for resume in range(RESUMES + 1):
            try:
                chunk = self._body.read(len(view))
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
                self._body = self._fetch(self._position, self._quoted_etag)["Body"]
        raise self._convert(error)

    def close(self) -> None:
        if not self.closed:
            self._body.close()
        super().close()
