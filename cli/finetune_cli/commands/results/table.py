"""Parses results.csv. Pure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_cli.terminal.errors import CommandError

STEP = "step"


@dataclass(frozen=True)
class Series:
    """The values of one column, without the steps that have no value."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """columns: the header of the file; rows: their cells, None for empty cells."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]

    def series(self, name: str) -> Series:
        """The values of a column. Raises CommandError if the column does not exist."""
        if name not in self.columns:
            raise CommandError(
                f"results.csv has no column {name!r}",
                f"choose one of {', '.join(self.columns)}",
            )
        step, column = self.columns.index(STEP), self.columns.index(name)
        measured = [
            (found[step] or 0.0, value)
            for found in self.rows
            if (value := found[column]) is not None and math.isfinite(value)
        ]
        return Series(name, tuple(x for x, _ in measured), tuple(y for _, y in measured))

    def records(self) -> list[dict[str, float | int | None]]:
        """One object for each row, for JSON and YAML."""
        return [
            {name: _plain(value) for name, value in zip(self.columns, found, strict=True)}
            for found in self.rows
        ]


def parse(text: str, where: str) -> Table:
    """Parse the file. where: its address. Raises CommandError if it is not a results.csv."""
    reader = csv.reader(io.StringIO(text))
    header = tuple(next(reader, ()))
    if STEP not in header:
        raise CommandError(f"{where} is not a results.csv: it has no column {STEP!r}")
    rows = []
    for cells in reader:
        if len(cells) != len(header):
            continue  # an incomplete last line, while the file is being written
        try:
            rows.append(tuple(float(cell) if cell else None for cell in cells))
        except ValueError as error:
            raise CommandError(
                f"{where}, line {reader.line_num}: a cell is not a number"
            ) from error
    return Table(header, tuple(rows))


def panels(table: Table, wanted: Sequence[str] = ()) -> list[list[Series]]:
    """Group columns into plots: the requested ones, or losses, accuracies, and classification."""
    if wanted:
        return [[table.series(name)] for name in wanted]
    groups = (
        ("training_loss", "validation_loss"),
        ("training_token_accuracy", "validation_token_accuracy"),
        ("training_sequence_accuracy", "validation_sequence_accuracy"),
        ("classification/accuracy",),
        ("classification/auroc",),
    )
    found = [
        [series for name in group if name in table.columns if (series := table.series(name)).values]
        for group in groups
    ]
    return [panel for panel in found if panel]


def _plain(value: float | None) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 2**53 else value
