"""Findings about single lines. The first few go to the status, and all to a file."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

FIRST = 20  # the number that the status holds
REPORTED = 100_000  # the report of a file full of mistakes must not fill the disk

# A code, for programs that read the report.
TOO_LONG = "too-long"  # prompt and completion exceed the context


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake. line and column count from 1, columns in characters; None: the whole file."""

    code: str
    message: str
    line: int | None = None
    column: int | None = None
    fatal: bool = False  # no tolerance skips it: the rest of the file cannot be read
    unit: str = "line"  # "row" of a workbook or of Parquet

    @property
    def place(self) -> str:
        """`line 17, column 3`; empty for the whole file."""
        if self.line is None:
            return ""
        return f"{self.unit} {self.line}" + (f", column {self.column}" if self.column else "")

    def in_file(self, name: str) -> Finding:
        """The same finding, whose place names the file."""
        if self.line is None:
            return replace(self, message=f"{name}: {self.message}")
        return replace(self, unit=f"{name}, {self.unit}")

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


def shown(text: str, limit: int = 40) -> str:
    """A text from a file, in quotes, shortened, and without control characters for a terminal."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return f'"{_printable(cut)}"'


def detail(error: BaseException) -> str:
    """The first line of a library's error, shortened and printable: it can quote the file."""
    first = str(error).strip().partition("\n")[0][:200]
    return _printable(first) or type(error).__name__


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def counted(number: int, noun: str) -> str:
    """`1 line`, `2,000 lines`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def has_or_have(number: int) -> str:
    """The verb after `counted`."""
    return "has" if number == 1 else "have"


class FindingsFile:
    """data-report.jsonl, the file of all findings: param, uri, line, column, code, message."""

    def __init__(self, path: Path, *, limit: int = REPORTED) -> None:
        self.path = path
        self._limit = limit
        self.written = 0
        self._file: TextIO | None = None

    def add(self, param: str, uri: str, finding: Finding) -> None:
        """Write a finding, unless the file has reached its limit."""
        if self.written >= self._limit:
            return
        if self._file is None:
            self._file = self.path.open("w", encoding="utf-8")
        self.written += 1
        entry = {
            "param": param,
            "uri": uri,
            "line": finding.line,
            "column": finding.column,
            "code": finding.code,
            "message": finding.message,
        }
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class FileFindings:
    """The findings of one data file."""

    param: str  # the spec field
    uri: str
    report: FindingsFile
    first: list[Finding] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    fatal: Finding | None = None

    def add(self, finding: Finding) -> None:
        self.codes[finding.code] += 1
        if len(self.first) < FIRST:
            self.first.append(finding)
        if finding.fatal:
            self.fatal = finding
        self.report.add(self.param, self.uri, finding)

    @property
    def count(self) -> int:
        return self.codes.total()
