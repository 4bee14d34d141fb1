"""The lines of a chart: their parts, and their values as text."""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from finetune_trainer.reporting.metric_curves import Point


@dataclass(frozen=True)
class Line:
    """One measured column."""

    name: str  # the column of results.csv
    label: str
    points: Sequence[Point]
    whole_steps: Collection[int] = ()  # steps measured on the whole validation file

    @property
    def parts(self) -> "list[Line]":
        """The points of single batches and those of the whole file, which are not comparable."""
        whole = [point for point in self.points if point.step in self.whole_steps]
        if len(whole) in (0, len(self.points)):
            return [self]
        batches = [point for point in self.points if point.step not in self.whole_steps]
        return [
            Line(self.name, f"{self.label}, one batch", batches),
            Line(self.name, f"{self.label}, whole file", whole, self.whole_steps),
        ]

    @property
    def finite(self) -> list[Point]:
        return [point for point in self.points if math.isfinite(point.value)]


def summarize(line: Line, write: Callable[[float], str], *, is_short: bool = False) -> str:
    """First and last value of a line, and its extremes unless `is_short`."""
    points = line.finite
    if not points:
        return f"{line.label}: no finite value"
    if len(points) == 1:
        return f"{line.label}: {write(points[0].value)} at step {points[0].step:,}"
    low = min(points, key=lambda point: point.value)
    high = max(points, key=lambda point: point.value)
    if write(low.value) == write(high.value):
        return f"{line.label}: always {write(low.value)}"
    ends = f"{line.label}: from {write(points[0].value)} to {write(points[-1].value)}"
    if is_short:
        return ends
    lowest = f"lowest {write(low.value)} at step {low.step:,}"
    return f"{ends}, {lowest}, highest {write(high.value)} at step {high.step:,}"


def describe(line: Line, begin: float, end: float, write: Callable[[float], str]) -> str:
    """The mean of a line over a span of steps, with its range; empty without finite values."""
    start = _position(line.points, begin)
    values = []
    for point in line.points[start : _position(line.points, end)]:
        if math.isfinite(point.value):
            values.append(point.value)
    if not values:
        return ""
    mean = write(sum(values) / len(values))
    low, high = write(min(values)), write(max(values))
    return f"{line.label} {mean}" + (f" ({low} to {high})" if low != high else "")


def _position(points: Sequence[Point], step: float) -> int:
    """The index of the first point at or after `step`."""
    return bisect_left(points, step, key=lambda point: point.step)
