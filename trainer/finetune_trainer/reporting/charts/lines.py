"""The lines of a chart: their parts, and what they say in words."""

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from finetune_trainer.reporting.metric_curves import Point


@dataclass(frozen=True)
class Line:
    """One measured column."""

    name: str  # as results.csv has it
    label: str
    points: Sequence[Point]
    whole_steps: Collection[int] = ()  # at which the whole file was measured, else one batch

    @property
    def parts(self) -> "list[Line]":
        """Of one batch each, then of the whole file: the two can't be compared."""
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
    """First and last value of a line, and unless `is_short` the lowest and the highest."""
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


def said(line: Line, begin: float, end: float, write: Callable[[float], str]) -> str:
    """The line's mean over these steps, with its range where it moved."""
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
    """Of the first point at or after `step`."""
    return bisect_left(points, step, key=lambda point: point.step)
