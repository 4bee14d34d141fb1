"""results.csv as numbers. Pure: text in, columns out."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import printable

STEP = "step"


@dataclass(frozen=True)
class Series:
    """What was measured of one column; steps in which it was not are left out."""

    name: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """columns: as the file names them; rows: a cell each, None where nothing was measured."""

    columns: tuple[str, ...]
    rows: tuple[tuple[float | None, ...], ...]

    def series(self, name: str) -> Series:
        """Raises CommandError for a column that is not there."""
        if name not in self.columns:
            raise CommandError(
                f"results.csv has no column {printable(name)!r}",
                f"it has {', '.join(self.columns)}",
            )
        step, column = self.columns.index(STEP), self.columns.index(name)
        measured = [
            (found[step] or 0.0, value)
            for found in self.rows
            if (value := found[column]) is not None and math.isfinite(value)
        ]
        return Series(name, tuple(x for x, _ in measured), tuple(y for _, y in measured))

    def records(self) -> list[dict[str, float | int | None]]:
        """One object a row, for JSON and YAML."""
        return [
            {name: _plain(value) for name, value in zip(self.columns, found, strict=True)}
            for found in self.rows
        ]


def parse(text: str, where: str) -> Table:
    """Raises CommandError for anything that is not a results.csv; where: its address."""
    reader = csv.reader(io.StringIO(text))
    header = tuple(next(reader, ()))
    if STEP not in header:
        raise CommandError(f"{where} is no results.csv: it has no column {STEP!r}")
    rows = []
    for cells in reader:
        if len(cells) != len(header):
            continue  # the last line of a file that is being written
        try:
            rows.append(tuple(float(cell) if cell else None for cell in cells))
        except ValueError as error:
            raise CommandError(
                f"{where}, line {reader.line_num}: a cell is not a number"
            ) from error
    return Table(header, tuple(rows))


def panels(table: Table, wanted: Sequence[str] = ()) -> list[list[Series]]:
    """Which columns share a plot: what was asked for, else losses, accuracies and classes."""
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
