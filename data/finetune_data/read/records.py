"""Converts the records of one file to examples, and describes how the file was read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from finetune_api.wire import JsonObject
from finetune_data.read.conversations import EXTRA_NAMES
from finetune_data.read.examples import Example
from finetune_data.read.findings import Finding
from finetune_data.read.problems import RecordProblem
from finetune_data.read.shapes import Cells, Shape, detect_shape

COLUMNS_DESCRIBED = 50
ReadResult = Example | Finding


@dataclass(frozen=True)
class Description:
    """How a file was read, for the user."""

    name: str
    format: str = ""
    compression: str | None = None
    shape: str = ""
    columns: tuple[str, ...] = ()  # of the first record
    ignored: tuple[str, ...] = ()  # columns that are not read
    sheet: str | None = None
    sheets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()  # sentences


class RecordConverter:
    """Converts the records of one file by the shape of the first record that has a known shape.

    prompt_column, completion_column: the columns that the user names; None: by their names
    """

    def __init__(self, name: str, prompt_column: str | None, completion_column: str | None) -> None:
        self.description = Description(name)
        self.shape: Shape | None = None
        self._prompt_column = prompt_column
        self._completion_column = completion_column

    def describe(self, **changes: Any) -> None:
        self.description = replace(self.description, **changes)

    def note(self, sentence: str) -> None:
        """Add a sentence to the description."""
        if sentence not in self.description.notes:
            self.describe(notes=(*self.description.notes, sentence))

    def convert(self, line: int, record: JsonObject) -> Example | RecordProblem:
        if self.shape is None:
            found = detect_shape(record, self._prompt_column, self._completion_column)
            if isinstance(found, RecordProblem):
                if not self.description.columns:
                    self.describe(columns=tuple(record)[:COLUMNS_DESCRIBED])
                return found
            self.shape = found
            self.describe(
                shape=found.name,
                columns=tuple(record)[:COLUMNS_DESCRIBED],
                ignored=found.ignored(record),
            )
            if found.note:
                self.note(found.note)
        example = self.shape.convert(line, record)
        if not isinstance(example, RecordProblem) and example.extra:
            self._remember_ignored(example.extra)
        return example

    def _remember_ignored(self, names: tuple[str, ...]) -> None:
        """Describe columns and keys that only later records have, too."""
        known = self.description.ignored
        new = tuple(name for name in names if name not in known)
        if new and len(known) < EXTRA_NAMES:
            self.describe(ignored=(*known, *new)[:EXTRA_NAMES])

    def convert_all(
        self,
        records: Iterator[tuple[int, JsonObject | Finding]],
        *,
        is_table: bool = False,
        unit: str = "line",
    ) -> Iterator[ReadResult]:
        """The examples of records, and findings for those that are none."""
        for line, record in records:
            if isinstance(record, Finding):
                yield record
                continue
            found = self.convert(line, Cells(record) if is_table else record)
            if isinstance(found, RecordProblem) and is_table and self.shape is None:
                # a problem of the header is a problem of all rows
                yield Finding(found.code, found.message, fatal=True)
                return
            if isinstance(found, RecordProblem):
                yield Finding(found.code, found.message, line, unit=unit)
            else:
                yield found
