"""How many cases of a wide matrix a run has: a part of them, or all with `ALL_CASES=1`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

import pytest

T = TypeVar("T")

ALL_CASES = os.environ.get("ALL_CASES", "") not in {"", "0"}


# For a test that repeats, at length, what shorter tests show.
LONG = pytest.mark.skipif(not ALL_CASES, reason="it takes long, and runs with ALL_CASES=1")


def every_nth(cases: Iterable[T], n: int, first: int = 0) -> list[T]:
    """Every n-th case, from the one with the index `first` on; all of them with `ALL_CASES=1`.

    Choose an n that has no common factor with the length of the inner dimension of the matrix, so
    that every value of each dimension occurs.
    """
    found = list(cases)
    return found if ALL_CASES else found[first::n]
