"""The confusion matrix of the whole validation file."""

from collections import Counter
from collections.abc import Sequence

from finetune_api.wire import Stored

SHOWN = 20  # rows and columns; less frequent classes share the last one
SHADES = 10


class ConfusionMatrix(Stored):
    """`counts[truth][predicted]`, both in the order of `labels`."""

    labels: list[str]
    counts: list[list[int]]
    others: int = 0  # number of classes that share the last label

    @classmethod
    def of(
        cls,
        labels: Sequence[str],
        truth: Sequence[int],
        predicted: Sequence[int],
        shown: int = SHOWN,
    ) -> "ConfusionMatrix":
        """truth, predicted: an index into `labels` for each example.

        The most frequent classes come first. With more than `shown` classes, the others share one
        label.
        """
        pairs = Counter(zip(truth, predicted, strict=True))
        frequency = Counter(truth)
        order = sorted(range(len(labels)), key=lambda label: (-frequency[label], label))
        others = len(order) - (shown - 1) if len(order) > shown else 0
        kept = order[: shown - 1] if others else order
        places = {label: place for place, label in enumerate(kept)}
        size = len(kept) + bool(others)
        counts = [[0] * size for _ in range(size)]
        for (true, guess), count in pairs.items():
            counts[places.get(true, len(kept))][places.get(guess, len(kept))] += count
        names = [labels[label] for label in kept]
        if others:
            names.append(f"{others:,} other classes")
        return cls(labels=names, counts=counts, others=others)

    @property
    def examples(self) -> int:
        return sum(map(sum, self.counts))

    @property
    def classes(self) -> int:
        return len(self.labels) + max(0, self.others - 1)

    @property
    def never_right(self) -> list[int]:
        """Rows of classes that have examples but no correct prediction."""
        return [row for row in range(len(self.counts)) if self.recall(row) == 0]

    @property
    def majority(self) -> float:
        """The share of the most frequent class: the accuracy of always predicting it."""
        own = self.counts[: len(self.counts) - bool(self.others)]
        return max(map(sum, own), default=0) / self.examples if self.examples else 0.0

    def recall(self, row: int) -> float | None:
        """Correct predictions / examples of a class; None without examples and for the others."""
        total = sum(self.counts[row])
        if not total or (self.others and row == len(self.counts) - 1):
            return None
        return self.counts[row][row] / total

    def precision(self, column: int) -> float | None:
        """Correct predictions / predictions of a class; None without any and for the others."""
        total = sum(row[column] for row in self.counts)
        if not total or (self.others and column == len(self.counts) - 1):
            return None
        return self.counts[column][column] / total

    def worst(self) -> tuple[str, str, int, int] | None:
        """The most frequent mistake: truth, prediction, count, and examples of the true class."""
        size = len(self.counts) - bool(self.others)
        mistakes = [
            (self.counts[row][column], row, column)
            for row in range(size)
            for column in range(size)
            if row != column and self.counts[row][column]
        ]
        if not mistakes:
            return None
        count, row, column = max(mistakes, key=lambda found: (found[0], -found[1], -found[2]))
        return self.labels[row], self.labels[column], count, sum(self.counts[row])

    def shade(self, row: int, column: int) -> int:
        """The share of a cell in its row, from 0 to SHADES."""
        total = sum(self.counts[row])
        count = self.counts[row][column]
        return max(1, round(SHADES * count / total)) if count else 0
