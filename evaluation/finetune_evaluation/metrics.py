"""What the grades of all rows say about a model, and about the difference of two models."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune_evaluation.names import (
    BRIER,
    CALIBRATION_ERROR,
    CLASS_METRICS,
    ENDED,
    EXACT_MATCH,
    LOWER_IS_BETTER,
    MACRO_F1,
    WEIGHTED_F1,
)

Numbers = npt.NDArray[np.float64]

BINS = 10  # of the calibration error
MOST_CLASSES = 200
CONFIDENCE_FACTOR = 1.96  # standard errors on both sides, for 95 %


@dataclass(frozen=True)
class Graded:
    """An answer and its grades.

    probability: of the whole answer and its end under the model; 0 for a prompt without room for
    an answer. has_ended: by itself, not at the maximum number of tokens.
    """

    line: int
    answer: str
    reference: str
    probability: float
    has_ended: bool
    grades: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """The metrics of a model. rows: what each metric is the mean of; only of those that are one."""

    metrics: dict[str, float]
    rows: dict[str, Numbers]


@dataclass(frozen=True)
class Difference:
    """Model minus other. margin: half of the 95 % interval; None for a metric that is no mean."""

    value: float
    margin: float | None


def classes_of(references: Sequence[str]) -> list[str]:
    """The classes of the references, the most frequent first; empty if they are free text.

    They are classes if each occurs twice on average, and there are at most MOST_CLASSES.
    """
    counts = Counter(text.strip() for text in references)
    if len(counts) > MOST_CLASSES or 2 * len(counts) > len(references):
        return []
    return [name for name, _ in counts.most_common()]


def measure(answers: Sequence[Graded], classes: Sequence[str]) -> Measured:
    """All metrics. classes: of `classes_of`. answers: at least one."""
    names = answers[0].grades
    rows = {name: np.array([found.grades[name] for found in answers]) for name in names}
    rows[ENDED] = np.array([float(found.has_ended) for found in answers])
    others: dict[str, float] = {}
    if classes:
        right = rows[EXACT_MATCH]
        confidence = np.array([found.probability for found in answers])
        rows[BRIER] = (confidence - right) ** 2
        others = _class_scores(answers, classes)
        others[CALIBRATION_ERROR] = calibration_error(confidence, right)
    found = others | {name: float(values.mean()) for name, values in rows.items()}
    order = (*names, *CLASS_METRICS, ENDED)
    return Measured({name: found[name] for name in order if name in found}, rows)


def _class_scores(answers: Sequence[Graded], classes: Sequence[str]) -> dict[str, float]:
    truth = [found.reference.strip() for found in answers]
    given = [found.answer.strip() for found in answers]
    scores = [f1(truth, given, name) for name in classes]
    weights = [truth.count(name) for name in classes]
    return {
        WEIGHTED_F1: float(np.average(scores, weights=weights)),
        MACRO_F1: float(np.mean(scores)),
    }


def f1(truth: Sequence[str], given: Sequence[str], name: str) -> float:
    """The F1 of one class; 0 for a class that no row has and no answer names."""
    right = sum(a == b == name for a, b in zip(truth, given, strict=True))
    total = truth.count(name) + given.count(name)
    return 2 * right / total if total else 0.0


def calibration_error(confidence: Numbers, right: Numbers) -> float:
    """The expected calibration error with BINS bins of equal width.

    The mean distance between confidence and share of right answers in a bin, weighted by its rows.
    """
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    total = 0.0
    for number in range(BINS):
        chosen = bins == number
        if chosen.any():
            total += abs(float(confidence[chosen].sum() - right[chosen].sum()))
    return total / len(confidence)


def compare(model: Measured, other: Measured) -> dict[str, Difference]:
    """The difference of each metric. The same rows answer both, so their differences are paired."""
    found = {}
    for name, value in model.metrics.items():
        margin = None
        if name in model.rows and len(model.rows[name]) > 1:
            pairs = model.rows[name] - other.rows[name]
            margin = CONFIDENCE_FACTOR * float(pairs.std(ddof=1)) / math.sqrt(len(pairs))
        found[name] = Difference(value - other.metrics[name], margin)
    return found


def is_better(name: str, difference: Difference) -> bool:
    """Whether the model beats the other in this metric. An equal value does not."""
    return difference.value < 0 if name in LOWER_IS_BETTER else difference.value > 0


def confusions(answers: Sequence[Graded], most: int) -> list[tuple[str, str, int]]:
    """The most frequent mistakes: reference, answer, and how often."""
    pairs = Counter(
        (found.reference.strip(), found.answer.strip())
        for found in answers
        if found.reference.strip() != found.answer.strip()
    )
    return [(*pair, count) for pair, count in pairs.most_common(most)]
