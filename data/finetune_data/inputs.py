"""A data file while it is read: from S3 or from this machine, and what it was, byte for byte."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_data.dataset import InputFile
from finetune_data.failures import DataError
from finetune_data.object_stream import ObjectStream
from finetune_data.storage import Storage

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class HashedStream(io.RawIOBase):
    """Passes bytes on, and knows how many there were and their SHA-256."""

    def __init__(self, stream: ObjectStream | BinaryIO, uri: str, size: int, etag: str) -> None:
        super().__init__()
        self._stream = stream
        self._uri = uri
        self._etag = etag
        self._digest = hashlib.sha256()
        self.size = size  # bytes, as stored
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        block = self._stream.read(len(view)) or b""
        view[: len(block)] = block
        self._digest.update(block)
        self.position += len(block)
        return len(block)

    def close(self) -> None:
        self._stream.close()
        super().close()

    @property
    def identity(self) -> InputFile:
        """What the file was; the digest is of all bytes once the stream was read to its end."""
        return InputFile(
            uri=self._uri, etag=self._etag, size=self.size, sha256=self._digest.hexdigest()
        )


def open_input(address: str, storage: Storage | None) -> HashedStream:
    """Open an `s3://` address or a local path. Raises StorageError or DataError."""
    if address.startswith("s3://"):
        if storage is None:
            raise ValueError(f"{address} needs a storage")
        stream = storage.open_stream(S3Uri.parse(address))
        return HashedStream(stream, address, stream.size, stream.etag)
    try:
        file = Path(address).open("rb")  # noqa: SIM115 - closed with the stream
    except OSError as error:
        raise DataError.of(
            Reason.DATA_NOT_FOUND, f"{address} can't be read: {error.strerror}"
        ) from error
    return HashedStream(file, address, Path(address).stat().st_size, "")
