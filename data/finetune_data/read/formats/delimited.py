"""CSV and other delimited formats. Cells are text, whatever they look like."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, detail
from finetune_data.read.formats.compression import BOM
from finetune_data.read.formats.headers import HeaderError, Note, Table
from finetune_data.read.formats.lines import split_lines

Record = tuple[int, JsonObject | Finding]
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SEPARATOR_LINE = re.compile(r'"?sep=([^"\r\n])"?\1*\s*', re.IGNORECASE)  # for Excel
ROW_LINES_BYTES = 8  # limit of the lines of one row, in line limits: an open quote continues


def find_delimiter(header: str) -> str:
    """The most frequent delimiter outside of quotes in the first line."""
    outside = "".join(header.split('"')[::2])
    found = Counter(char for char in outside if char in DELIMITERS)
    return max(DELIMITERS, key=lambda char: found[char]) if found else ","


def read_delimited(
    blocks: Iterable[bytes | Finding], limits: DataLimits, note: Note, *, usual: str | None = None
) -> Iterator[Record]:
    """A record per row, with the names of the header; a Finding for a row that does not fit.

    usual: the delimiter, unless the first line is `sep=;`; None: the header shows it. note: gets
    sentences about how the file is read.
    """
    feed = _LineFeed(blocks, limits)
    delimiter = _take_delimiter(feed, usual, note)
    if delimiter is None:
        if feed.failure is not None:
            yield 1, feed.failure
        return
    csv.field_size_limit(limits.max_line_bytes)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    table = Table(note)
    while True:
        line = feed.number + 1
        feed.size = 0
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            yield line, Finding("not-csv", _readable_error(error), line)
            continue
        yield from feed.take_findings()
        if feed.failure is not None and feed.is_cut:
            break
        try:
            found = table.record(cells, is_complete=True)
        except HeaderError as error:
            yield line, Finding("header", str(error), line, fatal=True)
            return
        if isinstance(found, Finding):
            yield line, Finding(found.code, found.message, line)
        elif found is not None:
            yield line, found
    yield from feed.take_findings()
    if feed.failure is not None:
        yield feed.number, feed.failure


def _take_delimiter(feed: _LineFeed, usual: str | None, note: Note) -> str | None:
    """The delimiter, after the line that Excel reads it from; None for an empty file."""
    first = next(feed, None)
    if first is None:
        return None
    if written := _SEPARATOR_LINE.fullmatch(first):
        delimiter = written[1]
    else:
        feed.back(first)
        delimiter = find_delimiter(first)
        if usual is not None and (usual in first or delimiter not in first):
            delimiter = usual
    if delimiter != (usual or ","):
        name = DELIMITERS.get(delimiter, f"{delimiter!r} character")
        note(f"the cells are separated by {name}s")
    return delimiter


def _readable_error(error: csv.Error) -> str:
    text = detail(error)
    if "field larger" in text:
        return "a cell is longer than the line limit: is a quote missing?"
    if "unexpected end of data" in text:
        return "a quoted cell has no closing quote"
    if "expected after" in text:
        return "a quote inside a quoted cell: write it twice"
    return f"not valid CSV: {text}"


class _LineFeed:
    """Lines of text for csv.reader, which needs strings and has no limits."""

    def __init__(self, blocks: Iterable[bytes | Finding], limits: DataLimits) -> None:
        self._lines = split_lines(blocks, limits)
        self._limit = ROW_LINES_BYTES * limits.max_line_bytes
        self._waiting: list[str] = []
        self._findings: list[Record] = []
        self.failure: Finding | None = None  # the reason why the lines ended early
        self.is_cut = False
        self.number = 0  # of the line that came last
        self.size = 0  # of the lines since the last row

    def back(self, line: str) -> None:
        self._waiting.append(line)
        self.number -= 1

    def take_findings(self) -> Iterator[Record]:
        """Lines that could not be read, since the last call."""
        found, self._findings = self._findings, []
        yield from found

    def __iter__(self) -> _LineFeed:
        return self

    def __next__(self) -> str:
        if self._waiting:
            self.number += 1
            return self._waiting.pop()
        for data in self._lines:
            if isinstance(data, Finding):
                if data.fatal:
                    self.failure = data
                    break
                self.number += 1
                self._findings.append((self.number, data))
                continue
            self.number += 1
            if not self.size:  # a byte order mark at the start of a row comes from a joined file
                data = data.removeprefix(BOM)  # noqa: PLW2901
            self.size += len(data)
            if self.size > self._limit:
                message = "a quoted cell has too many lines: is a quote missing?"
                self.failure = Finding("not-csv", message, self.number, fatal=True)
                self.is_cut = True
                break
            return data.decode("utf-8", "surrogateescape")
        raise StopIteration
