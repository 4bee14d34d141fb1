"""Text in other encodings and with other line ends, as the UTF-8 lines that the readers expect."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from finetune_data.read.findings import Finding
from finetune_data.read.formats.compression import BOM

Blocks = Iterator[bytes | Finding]
HEAD_BYTES = 64 * 1024
SAMPLES = (16, 512)  # bytes: the first name of a column or key, and more
MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)
ZERO_SHARE = 0.2  # of the characters of UTF-16 text: those of ASCII have a zero byte
_QUOTED = re.compile(rb'"[^"]*"')
_LINE_END = re.compile(rb"\r\n?|\n")


def take_head(blocks: Blocks) -> tuple[bytes, Blocks]:
    """The first bytes, at least HEAD_BYTES if the text has them, and all blocks again."""
    taken: list[bytes | Finding] = []
    size = 0
    for block in blocks:
        taken.append(block)
        if isinstance(block, Finding):
            break
        size += len(block)
        if size >= HEAD_BYTES:
            break
    head = b"".join(block for block in taken if isinstance(block, bytes))
    rest: list[bytes | Finding] = [block for block in taken if isinstance(block, Finding)]
    return head, _chain([head, *rest] if head else rest, blocks)


def find_wide_encoding(head: bytes) -> str | None:
    """`utf-16-le` or a similar encoding, with or without a byte order mark; None for any other.

    Without a mark, the zero bytes of ASCII characters, such as quotes, commas, and column names,
    show the encoding: UTF-8 text has none.
    """
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    for size in SAMPLES:
        sample = head[:size]
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        if max(even, odd) < max(1, ZERO_SHARE * (len(sample) // 2)):
            continue
        if 4 * even <= odd:
            return "utf-16-le"
        if 4 * odd <= even:
            return "utf-16-be"
    return None


def name_encoding(encoding: str) -> str:
    """`UTF-16` of `utf-16-le`; the name of any other encoding."""
    return encoding[:6].upper() if encoding.startswith("utf-") else encoding


def to_utf8(blocks: Blocks, encoding: str) -> Blocks:
    """The same text as UTF-8. A Finding is the last item if the text is not in this encoding."""
    errors = "surrogatepass" if encoding.startswith("utf-") else "strict"
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    try:
        for block in blocks:
            if isinstance(block, Finding):
                yield block
                return
            yield decoder.decode(block).encode("utf-8", "surrogatepass")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        message = f"the {name_encoding(encoding)} text is broken or cut off"
        yield Finding("encoding", message, fatal=True)


def without_marks(blocks: Blocks) -> Blocks:
    """The same text without byte order marks at its beginning, of which programs add several."""
    pending = b""
    for block in blocks:
        if isinstance(block, Finding):
            yield block
            return
        pending += block
        while pending.startswith(BOM):
            pending = pending[len(BOM) :]
        if len(pending) >= len(BOM):
            yield pending
            break
    else:
        if pending:
            yield pending
    yield from blocks


def has_old_line_ends(head: bytes, *, is_table: bool) -> bool:
    """Whether lines end with a carriage return only, as on old Macs.

    In a table, cells in quotes can hold line feeds.
    """
    if not is_table:
        return b"\r" in head and b"\n" not in head
    found = _LINE_END.search(_QUOTED.sub(b"", head))
    return found is not None and found[0] == b"\r"


def with_line_feeds(blocks: Blocks) -> Blocks:
    """The same text with line feeds as line ends."""
    pending = b""  # a carriage return at the end of a block
    for block in blocks:
        if isinstance(block, Finding):
            if pending:
                yield b"\n"
            yield block
            return
        text = pending + block
        pending = text[-1:] if text.endswith(b"\r") else b""
        if len(text) > len(pending):
            yield text[: len(text) - len(pending)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if pending:
        yield b"\n"


def _chain(first: list[bytes | Finding], rest: Blocks) -> Blocks:
    yield from first
    yield from rest
