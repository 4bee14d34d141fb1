"""Axes: the mapping from values to positions, and the positions and labels of ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune_trainer.reporting.formatting import number

Unit = Literal["plain", "percent", "count"]
LOGARITHMIC_FROM = 30  # highest / lowest value
LARGEST_DECADES = 12
SMALLEST = 1e-300  # smaller differences cannot be divided into ticks


@dataclass(frozen=True)
class Scale:
    """The mapping from `low`..`high` to 0..1, and the ticks with their labels."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    is_logarithmic: bool = False

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`."""
        if self.is_logarithmic:
            value = max(value, self.low)
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def step_scale(first: int, last: int, ticks: int = 5) -> Scale:
    """A scale of whole steps; a single step is in the middle."""
    if first >= last:
        return Scale(first - 0.5, first + 0.5, ((first, _short(first, 1)),))
    width = max(1, _nice((last - first) / ticks))
    width = width if float(width).is_integer() else 2 * width  # 2.5
    at = [width * k for k in range(math.ceil(first / width), math.floor(last / width) + 1)]
    return Scale(first, last, tuple((tick, _short(tick, width)) for tick in at))


def value_scale(
    values: Sequence[float], unit: Unit, *, may_be_logarithmic: bool = False, ticks: int = 5
) -> Scale:
    """A scale around finite values; shares stay within 0 to 1."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if may_be_logarithmic and low > 0 and high / low > LOGARITHMIC_FROM:
        return _logarithmic(low, high)
    if unit == "percent":
        low, high = (0.0, 1.0) if high - low > 0.25 else (low, high)
    largest = max(abs(low), abs(high))
    if high - low <= max(1e-9 * largest, SMALLEST):
        room = largest / 2 if largest > SMALLEST else 0.5
        low, high = low - room, high + room
    if unit == "count" or 0 <= low < 0.4 * high:
        low = min(0.0, low)
    width = _nice((high - low) / ticks)
    low, high = math.floor(low / width + 1e-9) * width, math.ceil(high / width - 1e-9) * width
    if unit == "percent":
        low, high = max(0.0, low), min(1.0, high)
    at = [width * k for k in range(math.ceil(low / width - 1e-9), round(high / width) + 1)]
    return Scale(low, high, tuple((tick, _tick(tick, width, unit)) for tick in at))


def _logarithmic(low: float, high: float) -> Scale:
    low = max(low, high / 10**LARGEST_DECADES)
    bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = math.ceil((top - bottom) / 8)
    factors = (1, 2, 5) if top - bottom <= 2 else (1,)
    at = [f * 10.0**k for k in range(bottom, top + 1, every) for f in factors]
    low, high = low / 1.1, high * 1.1
    inside = [tick for tick in at if low <= tick <= high]
    return Scale(low, high, tuple((tick, number(tick)) for tick in inside), is_logarithmic=True)


def _nice(width: float) -> float:
    """The next larger of 1, 2, 2.5, and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    for factor in (1, 2, 2.5, 5):
        if width <= factor * power * (1 + 1e-9):
            return factor * power
    return 10 * power


def _tick(tick: float, width: float, unit: Unit) -> str:
    if unit == "percent":
        return f"{100 * tick:.{_decimals(100 * width)}f}%"
    if abs(tick) < width / 2:
        return "0"
    if abs(tick) < 1e-3:
        return number(float(f"{tick:.3g}"))
    return _short(tick, width) if unit == "count" else f"{tick:,.{_decimals(width)}f}"


def _short(value: float, width: float) -> str:
    """A number with a unit prefix: 1,500 is `1.5k`."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= power and width >= power / 100:
            return f"{value / power:.{_decimals(width / power)}f}{letter}"
    return f"{value:.{_decimals(width)}f}"


def _decimals(width: float) -> int:
    """The number of decimals that distinguishes two ticks."""
    decimals = 0
    while decimals < 9 and abs(round(width, decimals) - width) > 1e-6 * width:
        decimals += 1
    return decimals
