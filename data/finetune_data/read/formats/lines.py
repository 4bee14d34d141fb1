"""Lines of an untrusted file, bounded in length and numbered from 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from finetune_api.limits import DataLimits
from finetune_data.read.findings import Finding
from finetune_data.read.formats.compression import BOM

# The number of a line, from 1, and the line, which is not empty, without its line end. No class,
# because millions of them are made.
Line = tuple[int, bytes]


def read_lines(blocks: Iterable[bytes | Finding], limits: DataLimits) -> Iterator[Line | Finding]:
    """The lines of a text, and a finding for each invalid line.

    Empty lines at the end are allowed. Before the end, consecutive empty lines are one finding.
    """
    number = 0  # of the last complete line
    empty = 0  # empty lines right before this one
    for data in split_lines(blocks, limits, end=b""):
        if isinstance(data, Finding):
            if data.fatal:
                yield data
                return
            number += 1
        else:
            number += 1
            # a byte order mark that is not at the start of the file comes from a joined file
            data = data.removeprefix(BOM).removesuffix(b"\r")  # noqa: PLW2901
            if not data or data.isspace():
                empty += 1
                continue
        if empty:
            yield _empty_lines(number - empty, number - 1)
            empty = 0
        yield data if isinstance(data, Finding) else (number, data)


def split_lines(
    blocks: Iterable[bytes | Finding], limits: DataLimits, *, end: bytes = b"\n"
) -> Iterator[bytes | Finding]:
    """Every line with its line end; a Finding for a line that is too long.

    The items count the lines, until a fatal finding. end: what a line has in place of its line
    feed.
    """
    pending: list[bytes] = []  # the beginning of the next line
    size = 0  # of it
    number = 0  # of the last line
    dropping = False  # the rest of a line that was too long
    for block in blocks:
        if isinstance(block, Finding):
            yield block
            return
        pieces = block.split(b"\n")
        last = pieces.pop()
        if pieces:
            pieces[0] = b"".join((*pending, pieces[0]))
            pending, size = [], 0
            for piece in pieces:
                number += 1
                if dropping:
                    dropping = False
                elif _is_too_long(piece, limits):
                    yield _too_long(number, limits)
                else:
                    yield piece + end
        if dropping:
            continue
        pending.append(last)
        size += len(last)
        if size > limits.max_line_bytes + 1:  # a carriage return can follow
            yield _too_long(number + 1, limits)
            dropping, pending, size = True, [], 0
    if size and not dropping:
        rest = b"".join(pending)
        yield _too_long(number + 1, limits) if _is_too_long(rest, limits) else rest


def _empty_lines(first: int, last: int) -> Finding:
    message = "empty line" if first == last else f"empty lines up to line {last}"
    return Finding("empty-line", message, first)


def _is_too_long(line: bytes, limits: DataLimits) -> bool:
    limit = limits.max_line_bytes
    return len(line) > limit and len(line.removesuffix(b"\r")) > limit


def _too_long(number: int, limits: DataLimits) -> Finding:
    return Finding("line-too-long", f"longer than {limits.max_line_bytes:,} bytes", number)
