"""The lengths of examples, in characters or in the base model's own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 32  # powers of two


class Lengths:
    """A histogram by powers of two, and the total."""

    def __init__(self) -> None:
        self.total = 0
        self._bins = np.zeros(BINS, np.int64)

    def observe(self, lengths: Sequence[int]) -> None:
        values = np.fromiter(lengths, np.int64, len(lengths))
        self.total += int(values.sum())
        bins = np.minimum(np.ceil(np.log2(np.maximum(values, 1))).astype(np.int64), BINS - 1)
        self._bins += np.bincount(bins, minlength=BINS)

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """The label and the count of each bin, without the empty bins at either end."""
        full = np.flatnonzero(self._bins)
        if not len(full):
            return []
        return [
            (f"≤ {2**power:,}", int(self._bins[power]))
            for power in range(int(full[0]), int(full[-1]) + 1)
        ]
