"""Plain, gzip, and zstd streams, detected by the first bytes and bounded after decompression."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from finetune_api.limits import DataLimits
from finetune_data.read.findings import Finding

BLOCK_BYTES = 256 * 1024
ZSTD_BYTES = 1024
HEAD_BYTES = 16
GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
ZIP = b"PK\x03\x04"
PARQUET = b"PAR1"
BOM = b"\xef\xbb\xbf"

# The first bytes of files that are not data files.
FOREIGN_FORMATS = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file (.xls, .doc): save it as .xlsx"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file: unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip file: unpack it first"),
    (b"Rar!", "a RAR file: unpack it first"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x80\x02", "a pickle, which is never loaded"),
    (b"\x80\x03", "a pickle, which is never loaded"),
    (b"\x80\x04", "a pickle, which is never loaded"),
    (b"\x80\x05", "a pickle, which is never loaded"),
)


def name_compression(head: bytes) -> str | None:
    """`gzip`, `zstd` or None."""
    return "gzip" if head.startswith(GZIP) else "zstd" if head.startswith(ZSTD) else None


def name_foreign_format(head: bytes) -> str | None:
    """The name of a format that is not supported; None for any other."""
    return next((words for magic, words in FOREIGN_FORMATS if head.startswith(magic)), None)


class PeekedStream(io.RawIOBase):
    """A stream whose first bytes are in `head`. Reading still returns them."""

    def __init__(self, stream: io.RawIOBase | BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.head = b""
        while len(self.head) < HEAD_BYTES and (more := stream.read(HEAD_BYTES - len(self.head))):
            self.head += more
        self._left = self.head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._left:
            end = len(self._left) if size < 0 else size
            block, self._left = self._left[:end], self._left[end:]
            return block
        return self._stream.read(size) or b""


def read_blocks(stream: PeekedStream, limits: DataLimits) -> Iterator[bytes | Finding]:
    """Decompressed blocks. A fatal Finding is the last item if they cannot be read."""
    packed = name_compression(stream.head)
    total = 0
    blocks = _unpacked(stream, packed)
    while True:
        try:
            block = next(blocks, b"")
        except _CompressionError:
            message = f"the {packed} data is broken or cut off"
            yield Finding("compression", message, fatal=True)
            return
        if not block:
            return
        total += len(block)
        if total > limits.max_file_bytes:
            unpacked = ", decompressed" if packed else ""
            message = f"the file has more than {limits.max_file_bytes:,} bytes{unpacked}"
            yield Finding("file-too-large", message, fatal=True)
            return
        yield block


class _CompressionError(Exception):
    """Compressed data that is invalid or incomplete."""


def _unpacked(stream: PeekedStream, packed: str | None) -> Iterator[bytes]:
    if packed == "zstd":
        yield from _unzstd(stream)
        return
    source: io.RawIOBase | gzip.GzipFile = (
        gzip.GzipFile(fileobj=stream) if packed == "gzip" else stream
    )
    while True:
        try:
            block = source.read(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _CompressionError from error
        if not block:
            return
        yield block


def _unzstd(stream: PeekedStream) -> Iterator[bytes]:
    """Decompress frame after frame, in small pieces: a few bytes can hold a block of 128 KiB."""
    from zstandard import ZstdDecompressor, ZstdError

    # the window's limit is zstd's own default for a decoder: 128 MiB of memory at most
    unpacker = ZstdDecompressor(max_window_size=2**27)
    frame = unpacker.decompressobj()
    is_open = False
    try:
        while packed := stream.read(ZSTD_BYTES):
            while packed:
                if frame.eof:
                    frame = unpacker.decompressobj()
                if block := frame.decompress(packed):
                    yield block
                is_open, packed = not frame.eof, frame.unused_data if frame.eof else b""
    except ZstdError as error:
        raise _CompressionError from error
    if is_open:
        raise _CompressionError
