"""Draws a line chart with braille characters, which have eight dots each. Pure.

The first series is a line; the others are marks, so that they differ without colors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from finetune_cli.commands.results.table import Series
from finetune_cli.terminal.format import number

MARKS = ("⣿", "o", "x", "+")
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # by row and column in a cell


@dataclass(frozen=True)
class Range:
    """The range of an axis; never empty."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        low, high = min(values), max(values)
        if low == high:
            margin = abs(low) * 0.1 or 1.0
            return cls(low - margin, high + margin)
        return cls(low, high)

    def index(self, value: float, cells: int) -> int:
        """The cell of a value, from 0 to cells - 1."""
        share = (value - self.low) / (self.high - self.low)
        return min(cells - 1, max(0, round(share * (cells - 1))))


def chart(panel: Sequence[Series], width: int, height: int) -> list[str]:
    """The lines of a chart with a title and axes, at most `width` characters wide.

    height: lines of the plot itself. All points are drawn, so that no extreme value is lost.
    """
    steps = Range.of([step for series in panel for step in series.steps])
    values = Range.of([value for series in panel for value in series.values])
    labels = _labels(values, height)
    margin = max(map(len, labels))
    columns = max(10, width - margin - 2)
    cells = _line(panel[0], steps, values, columns, height)
    for mark, series in zip(MARKS[1:], panel[1:], strict=False):
        for step, value in zip(series.steps, series.values, strict=True):
            cells[height - 1 - values.index(value, height)][steps.index(step, columns)] = mark
    lines = [" " * (margin + 2) + _legend(panel)]
    for label, cell in zip(labels, cells, strict=True):
        lines.append(f"{label:>{margin}} ┤{''.join(cell)}".rstrip())
    first, last = f"{steps.low:,.0f}", f"{steps.high:,.0f}"
    lines.append(" " * margin + " └" + "─" * columns)
    lines.append(" " * (margin + 2) + first + last.rjust(columns - len(first)))
    return lines


def _labels(values: Range, height: int) -> list[str]:
    """The label of each line: the highest, the middle, and the lowest value."""
    labels = [""] * height
    labels[(height - 1) // 2] = number((values.low + values.high) / 2)
    labels[0], labels[-1] = number(values.high), number(values.low)
    return labels


def _line(
    series: Series, steps: Range, values: Range, columns: int, height: int
) -> list[list[str]]:
    """Rows of characters; consecutive points are connected."""
    dots = [[0] * columns for _ in range(height)]
    wide, high = 2 * columns, 4 * height

    def dot(x: int, y: int) -> None:
        row = high - 1 - y
        dots[row // 4][x // 2] |= _DOTS[row % 4][x % 2]

    points = [
        (steps.index(step, wide), values.index(value, high))
        for step, value in zip(series.steps, series.values, strict=True)
    ]
    for (x, y), (to_x, to_y) in pairwise(points):
        length = max(abs(to_x - x), abs(to_y - y), 1)
        for done in range(length + 1):
            dot(x + round((to_x - x) * done / length), y + round((to_y - y) * done / length))
    if len(points) == 1:
        dot(*points[0])
    return [[chr(0x2800 + cell) if cell else " " for cell in row] for row in dots]


def _legend(panel: Sequence[Series]) -> str:
    parts = [f"{series.name} {number(series.values[-1])}" for series in panel]
    if len(panel) == 1:
        return parts[0]
    return "   ".join(f"{mark} {word}" for mark, word in zip(MARKS, parts, strict=False))
