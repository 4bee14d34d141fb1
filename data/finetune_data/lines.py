"""Lines of a file that nobody trusts: plain or gzip, bounded in every direction, never a crash."""

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from finetune_api.tasks import DataLimits
from finetune_data.findings import Finding

BLOCK_BYTES = 256 * 1024
BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"

# First bytes of what people give instead of JSONL.
OTHER_FORMATS = (
    (GZIP, "a gzip file inside a gzip file"),
    (b"PK\x03\x04", "an XLSX or ZIP file"),
    (b"PAR1", "a Parquet file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\x00", "an xz file"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)


class Line(NamedTuple):
    """One line that has something on it, without its end; `number` counts from 1."""

    number: int
    data: bytes


def read_lines(stream: io.RawIOBase | BinaryIO, limits: DataLimits) -> Iterator[Line | Finding]:
    """The lines of a plain or gzip stream, and a finding for each that can't be one.

    Empty lines at the end are fine; before the end they are a finding, one for a run of them. A
    fatal finding is the last that comes.
    """
    number = 0  # of the last complete line
    pending = b""  # the beginning of the next one
    dropping = False  # the rest of a line that was too long
    empty = 0  # empty lines right before this one
    blocks = _decoded_blocks(stream, limits)
    while True:
        block = next(blocks, None)
        if isinstance(block, Finding):
            yield block
            return
        *complete, pending = (pending + (b"\n" if block is None else block)).split(b"\n")
        if block is None and complete == [b""] and not dropping:
            return  # the last line had an end of its own
        for data in complete:
            number += 1
            if dropping:  # it was told when it became too long
                dropping = False
                continue
            data = data.removesuffix(b"\r")  # noqa: PLW2901
            if number == 1:
                data = data.removeprefix(BOM)  # noqa: PLW2901
            if not data.strip():
                empty += 1
                continue
            if empty:
                yield _empty_lines(number - empty, number - 1)
                empty = 0
            too_long = len(data) > limits.max_line_bytes
            yield _too_long(number, limits) if too_long else Line(number, data)
        if block is None:
            return
        if len(pending) > limits.max_line_bytes + len(BOM):
            if not dropping:
                if empty:
                    yield _empty_lines(number + 1 - empty, number)
                    empty = 0
                yield _too_long(number + 1, limits)
            dropping, pending = True, b""


def _empty_lines(first: int, last: int) -> Finding:
    message = "empty line" if first == last else f"empty lines up to line {last}"
    return Finding("empty-line", message, first)


def _too_long(number: int, limits: DataLimits) -> Finding:
    return Finding("line-too-long", f"longer than {limits.max_line_bytes:,} bytes", number)


def _decoded_blocks(
    stream: io.RawIOBase | BinaryIO, limits: DataLimits
) -> Iterator[bytes | Finding]:
    """Decompressed blocks; a Finding, and then nothing more, where the file is not for us."""
    file = _Peeked(stream)
    is_gzip = file.head.startswith(GZIP)
    decoded: io.RawIOBase | gzip.GzipFile = gzip.GzipFile(fileobj=file) if is_gzip else file
    total = 0
    while True:
        try:
            block = decoded.read(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield Finding("gzip", "the gzip data is broken or cut off", fatal=True)
            return
        if not block:
            return
        if total == 0 and (other := _other_format(block)):
            message = f"this is {other}; expected JSONL in UTF-8, plain or .gz: one object a line"
            yield Finding("format", message, fatal=True)
            return
        total += len(block)
        if total > limits.max_file_bytes:
            unpacked = ", decompressed" if is_gzip else ""
            message = f"the file has more than {limits.max_file_bytes:,} bytes{unpacked}"
            yield Finding("file-too-large", message, fatal=True)
            return
        yield block


def _other_format(head: bytes) -> str | None:
    return next((name for magic, name in OTHER_FORMATS if head.startswith(magic)), None)


class _Peeked(io.RawIOBase):
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: io.RawIOBase | BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.head = b""
        while len(self.head) < len(GZIP) and (more := stream.read(len(GZIP) - len(self.head))):
            self.head += more
        self._left = self.head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._left:
            block, self._left = self._left, b""
            # other formats are told from six bytes, so the first block must not be two
            return block + (self._stream.read(max(0, size - len(block))) or b"")
        return self._stream.read(size) or b""
