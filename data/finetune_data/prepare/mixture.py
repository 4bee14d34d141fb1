"""The examples of an epoch from several training files with weights. Pure.

Every example occurs at least once, so the file with the most examples for its weight has each of
its examples exactly once, and the others repeat theirs. With n examples and weight w of each file,
an epoch has max(n / w) * w examples of it. Weights are exact decimal numbers and not binary ones,
so that 0.3 and 0.1 are the same as 3 and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finetune_api.training_files import LEAST_WEIGHT, MOST_REPEATS, MOST_WEIGHT

MOST_PASSES = 16  # over one example in all epochs, without advice about it
DIGITS = 3  # of proposed weights

Counts = npt.NDArray[np.int64]


class Excess(NamedTuple):
    """A file that is too small for its weight."""

    file: int  # its index
    repeats: int  # of an example in an epoch
    weights: list[float] | None  # of all files, with as few changes as possible; None: none works


def epoch_examples(examples: Sequence[int], weights: Sequence[float] | None) -> list[int]:
    """The number of examples of each file in an epoch.

    examples: of each file, at least 1. weights: None for every example once.
    """
    if weights is None:
        return list(examples)
    exact = _exact(weights)
    scale = _scale(examples, exact)
    return [_nearest(scale * weight) for weight in exact]


def occurrences(examples: int, in_epoch: int, start: int, stop: int) -> Counts:
    """How often each of the examples `start` to `stop` occurs in an epoch, shape (stop - start,).

    Any two numbers of a file differ by at most 1, and the larger ones are spread evenly over it.
    """
    whole, rest = divmod(in_epoch, examples)
    ends = np.arange(start, stop + 1, dtype=np.int64) * rest // examples
    return whole + np.diff(ends)


def most_repeats(examples: int, in_epoch: int) -> int:
    """The largest of the occurrences."""
    return -(-in_epoch // examples)


def find_excess(examples: Sequence[int], weights: Sequence[float] | None) -> Excess | None:
    """The file whose examples would occur most often, if that is more than MOST_REPEATS times."""
    if weights is None:
        return None
    counts = zip(examples, epoch_examples(examples, weights), strict=True)
    repeats = [most_repeats(count, in_epoch) for count, in_epoch in counts]
    worst = max(range(len(repeats)), key=lambda index: repeats[index])
    if repeats[worst] <= MOST_REPEATS:
        return None
    return Excess(worst, repeats[worst], _workable_weights(examples, weights))


def _workable_weights(examples: Sequence[int], weights: Sequence[float]) -> list[float] | None:
    """Lower only the weights that are too large for their files."""
    exact = _exact(weights)
    scale = _scale(examples, exact)
    lowered = [
        weight if weight * scale <= MOST_REPEATS * count else _cut(MOST_REPEATS * count / scale)
        for count, weight in zip(examples, exact, strict=True)
    ]
    while min(lowered) < _decimal(LEAST_WEIGHT):
        lowered = [10 * weight for weight in lowered]
    return None if max(lowered) > MOST_WEIGHT else [float(weight) for weight in lowered]


def _exact(weights: Sequence[float]) -> list[Fraction]:
    return [_decimal(weight) for weight in weights]


def _decimal(weight: float) -> Fraction:
    """The decimal number that a user wrote: its shortest form that gives the same float."""
    return Fraction(repr(float(weight)))


def _scale(examples: Sequence[int], weights: Sequence[Fraction]) -> Fraction:
    return max(count / weight for count, weight in zip(examples, weights, strict=True))


def _nearest(value: Fraction) -> int:
    """The nearest integer; halves are rounded up."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _cut(value: Fraction) -> Fraction:
    """A value with DIGITS significant digits, rounded down."""
    unit = Fraction(1)
    while value / unit >= 10**DIGITS:
        unit *= 10
    while value / unit < 10 ** (DIGITS - 1):
        unit /= 10
    return value // unit * unit
