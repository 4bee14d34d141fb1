"""The columns of results.csv as curves."""

import math
from dataclasses import dataclass
from typing import NamedTuple

STEP = "step"


class Point(NamedTuple):
    """A measured cell; the value can be NaN or infinite."""

    step: int
    value: float


@dataclass(frozen=True)
class Curves:
    """The measured cells of each column, in file order; columns without any are omitted."""

    columns: dict[str, list[Point]]
    rows: int
    broken_rows: int = 0  # truncated or unreadable

    @classmethod
    def parse(cls, text: str) -> "Curves":
        """Parse results.csv; never fails, because a crash can truncate the file."""
        header, *lines = text.splitlines() or [""]
        names = header.split(",")
        place = names.index(STEP) if STEP in names else -1
        found: dict[str, list[Point]] = {name: [] for name in names}
        rows = broken = 0
        for line in lines:
            cells = line.split(",")
            is_whole = place >= 0 and len(cells) == len(names)
            step = _number(cells[place]) if is_whole else None
            if step is None or not step.is_integer():
                broken += 1
                continue
            rows += 1
            for name, cell in zip(names, cells, strict=True):
                if (value := _number(cell)) is not None:
                    found[name].append(Point(int(step), value))
        measured = {name: points for name, points in found.items() if points}
        return cls(measured, rows, broken)

    def points(self, name: str) -> list[Point]:
        """The points of a column; empty if nothing was measured."""
        return self.columns.get(name, [])

    def finite(self, name: str) -> list[Point]:
        """The points of a column without NaN and infinite values."""
        return [point for point in self.points(name) if math.isfinite(point.value)]

    def last(self, name: str) -> float | None:
        """The last finite value; None if there is none."""
        points = self.finite(name)
        return points[-1].value if points else None

    def mean_since(self, name: str, step: int) -> float | None:
        """The mean of the finite values after `step`; None if there are none."""
        values = [point.value for point in self.finite(name) if point.step > step]
        return sum(values) / len(values) if values else None

    @property
    def last_step(self) -> int:
        """The step of the last row; 0 if there is no row."""
        steps = self.columns.get(STEP)
        return steps[-1].step if steps else 0


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
