"""Finds one example: in a data file, in data from stdin, or in an argument."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from finetune_api.names import EXIT_USER
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finetune_data.read.examples import Example
    from finetune_data.read.findings import Finding
    from finetune_data.read.reader import Reader, ReadOptions
    from finetune_storage.s3 import Storage

_CHAT = re.compile(r'"(messages|conversations)"\s*:')
_PAIR = (re.compile(r'"prompt"\s*:'), re.compile(r'"completion"\s*:'))


class Located(NamedTuple):
    """An example and its place, for messages: `train.jsonl, line 3`."""

    example: Example
    file: str  # its name
    unit: str  # "line", or "row" of a workbook or of Parquet

    @property
    def place(self) -> str:
        return f"{self.file}, {self.unit} {self.example.line}"


def is_data(text: str) -> bool:
    """Whether a text is an example, or several, in JSON. Any other text is shown as a text."""
    if not text.lstrip().startswith("{"):
        return False
    return bool(_CHAT.search(text)) or all(key.search(text) for key in _PAIR)


def open_data(data: bytes, name: str, folder: Path, options: ReadOptions) -> Reader:
    """A reader of data that is no file. name: for messages."""
    from finetune_data.read.reader import Reader
    from finetune_data.read.sources import LocalSource

    path = folder / name
    path.write_bytes(data)
    return Reader(LocalSource(path), options)


def open_file(address: str, storage: Storage | None, folder: Path, options: ReadOptions) -> Reader:
    """A reader of one file. Raises CommandError for several, and DataError for none."""
    from finetune_data.read.reader import Reader
    from finetune_data.read.sources import find_sources

    found = find_sources([address], storage, folder)
    if len(found) > 1:
        raise CommandError(
            f"{address} is {len(found):,} files, expected one",
            f"pass one of them, such as {found[0].name}",
            code=EXIT_USAGE,
        )
    return Reader(found[0], options)


def find_example(reader: Reader, line: int | None) -> Located:
    """The example in a line, or the first one. Reads no further than needed.

    Raises CommandError: with EXIT_USER for a line that is no example, EXIT_USAGE for a line that
    does not exist.
    """
    name = PurePath(reader.source.name).name
    last = 0
    for item, unit in _items(reader):
        if line is None or item.line == line or _is_fatal(item):
            return _located(item, name, unit)
        if (item.line or 0) > line:
            break
        last = item.line or last
    if line is None:
        raise CommandError(f"{name} has no example", code=EXIT_USER)
    raise CommandError(
        f"{name} has no example in line {line:,}; "
        + (f"the one before it is in line {last:,}" if last else "its first one is after it"),
        "count lines from 1, with the header of a table and empty lines",
        code=EXIT_USAGE,
    )


def _items(reader: Reader) -> Iterator[tuple[Example | Finding, str]]:
    """Examples and findings in the order of their lines; a finding about the file comes last."""
    for batch in reader.batches():
        unit = "row" if reader.description.format in {"Parquet", "XLSX"} else "line"
        items: list[Example | Finding] = [*batch.examples, *batch.findings]
        for item in sorted(items, key=lambda it: (_is_fatal(it), it.line or 0)):
            yield item, unit


def _is_fatal(item: Example | Finding) -> bool:
    return bool(getattr(item, "fatal", False))


def _located(item: Example | Finding, name: str, unit: str) -> Located:
    from finetune_data.read.findings import Finding

    if isinstance(item, Finding):
        raise CommandError(f"{name}, {item}" if item.place else f"{name}: {item}", code=EXIT_USER)
    return Located(item, name, unit)
