"""The columns of results.csv as curves: read, thinned for drawing, smoothed."""

import math
from dataclasses import dataclass
from typing import NamedTuple

STEP = "step"


class Point(NamedTuple):
    """A measured cell; the value may be NaN or infinite."""

    step: int
    value: float


@dataclass(frozen=True)
class Curves:
    """The measured cells of each column, in the file's order; columns without any are left out."""

    columns: dict[str, list[Point]]
    rows: int
    broken_rows: int = 0  # cut off or unreadable

    @classmethod
    def parse(cls, text: str) -> "Curves":
        """Never fails: a report is also made of a file that a crash has cut off."""
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
        """Empty where nothing was measured."""
        return self.columns.get(name, [])

    def finite(self, name: str) -> list[Point]:
        return [point for point in self.points(name) if math.isfinite(point.value)]

    def last(self, name: str) -> float | None:
        """The last finite value."""
        points = self.finite(name)
        return points[-1].value if points else None

    def mean_since(self, name: str, step: int) -> float | None:
        """Over the finite values after `step`."""
        values = [point.value for point in self.finite(name) if point.step > step]
        return sum(values) / len(values) if values else None

    @property
    def last_step(self) -> int:
        """0 where there is no row."""
        steps = self.columns.get(STEP)
        return steps[-1].step if steps else 0


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
