"""How long examples are, in characters or the base model's own tokens; which are too long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import LeaveOut
from finetune_data.lint.remarks import Places, Remark
from finetune_data.read.findings import counted

BINS = 32  # powers of two


class Lengths:
    """A histogram by powers of two, the total, and the examples over the context."""

    def __init__(self, context: int | None) -> None:
        self._context = context
        self._bins = np.zeros(BINS, np.int64)
        self.total = 0
        self._too_long: list[int] = []
        self._places = Places()

    def look(self, columns: Columns, lengths: Sequence[int]) -> None:
        values = np.fromiter(lengths, np.int64, len(lengths))
        self.total += int(values.sum())
        bins = np.minimum(np.ceil(np.log2(np.maximum(values, 1))).astype(np.int64), BINS - 1)
        self._bins += np.bincount(bins, minlength=BINS)
        if self._context is None:
            return
        for index in np.flatnonzero(values > self._context):
            self._too_long.append(columns.first + int(index))
            line = columns.examples[int(index)].line
            self._places.add(f"line {line}: {int(values[index]):,} tokens")

    @property
    def histogram(self) -> list[tuple[str, int]]:
        """Without the empty bins at either end."""
        full = np.flatnonzero(self._bins)
        if not len(full):
            return []
        return [
            (f"≤ {2**power:,}", int(self._bins[power]))
            for power in range(int(full[0]), int(full[-1]) + 1)
        ]

    def remarks(self, facts: Facts) -> list[Remark]:
        count = len(self._too_long)
        if not count or self._context is None:
            return []
        mask = np.zeros(facts.examples, bool)
        mask[self._too_long] = True
        return [
            Remark(
                "too-long",
                "error",
                f"{counted(count, 'example')} {'has' if count == 1 else 'have'} more than the "
                f"{self._context:,} tokens that the base model takes",
                count,
                self._places.places,
                fix=LeaveOut("too-long", f"Leave out the {counted(count, 'long example')}", mask),
            )
        ]
