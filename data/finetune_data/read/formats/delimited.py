"""CSV and other delimited formats. Cells are text, whatever they look like."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, counted, detail, shown
from finetune_data.read.formats.lines import split_lines

Record = tuple[int, JsonObject | Finding]
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
ROW_LINES_BYTES = 8  # limit of the lines of one row, in line limits: an open quote continues


def find_delimiter(header: str) -> str:
    """The most frequent delimiter outside of quotes in the first line."""
    outside = "".join(header.split('"')[::2])
    found = Counter(char for char in outside if char in DELIMITERS)
    return max(DELIMITERS, key=lambda char: found[char]) if found else ","


def read_delimited(
    blocks: Iterable[bytes | Finding], limits: DataLimits, delimiter: str | None
) -> Iterator[Record]:
    """A record per row, with the names of the first row; a Finding for a row that does not fit."""
    feed = _LineFeed(blocks, limits)
    first = next(feed, None)
    if first is None:
        if feed.failure is not None:
            yield 1, feed.failure
        return
    feed.back(first)
    csv.field_size_limit(limits.max_line_bytes)
    reader = csv.reader(feed, delimiter=delimiter or find_delimiter(first), strict=True)
    header: list[str] | None = None
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
        if not cells:
            continue
        if header is None:
            header = cells
            if (problem := _header_problem(header)) is not None:
                yield line, Finding("header", problem, line, fatal=True)
                return
        elif len(cells) != len(header):
            have, want = counted(len(cells), "cell"), counted(len(header), "column")
            yield line, Finding("cells", f"{have}, but the header has {want}", line)
        else:
            yield line, dict(zip(header, cells, strict=True))
    yield from feed.take_findings()
    if feed.failure is not None:
        yield feed.number, feed.failure


def _header_problem(header: list[str]) -> str | None:
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        return f"the header has the column {shown(repeated[0])} twice"
    return None


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
            self.size += len(data)
            if self.size > self._limit:
                message = "a quoted cell has too many lines: is a quote missing?"
                self.failure = Finding("not-csv", message, self.number, fatal=True)
                self.is_cut = True
                break
            return data.decode("utf-8", "surrogateescape")
        raise StopIteration
