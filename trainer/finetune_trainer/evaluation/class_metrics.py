"""Classification metrics, by the definitions of the old service's guide. Pure NumPy.

scores: [examples, classes], a probability for each class; truth: [examples], indices of classes.
A ratio whose denominator is zero is 0; what one class alone can't define is None: an empty cell.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_api.tasks import Classification

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
PREFIX = "classification/"


def columns(asked: Classification) -> list[str]:
    """In the old service's order: of two classes with a positive one, or of many."""
    if asked.positive_class is None:
        names = ["accuracy", "weighted_f1_score"]
    else:
        names = ["accuracy", "precision", "recall", "auroc", "auprc"]
        names += [f"f{float(beta)!r}" for beta in betas(asked)]
    return [PREFIX + name for name in names]


def betas(asked: Classification) -> list[float]:
    """F1 always, then those that were asked for."""
    return [1.0, *(float(beta) for beta in asked.betas if float(beta) != 1.0)]


def measure(
    scores: Scores, truth: Labels, asked: Classification, positive: int | None
) -> dict[str, float | None]:
    """Each of `columns` for one look at the whole validation file."""
    if positive is None:
        predicted = scores.argmax(1)
        values: list[float | None] = [
            float(np.mean(predicted == truth)),
            weighted_f1(predicted, truth, scores.shape[1]),
        ]
        return dict(zip(columns(asked), values, strict=True))
    is_positive, score = truth == positive, scores[:, positive]
    said = score > 0.5
    right = int(np.sum(said & is_positive))
    precision = _ratio(right, int(said.sum()))
    recall = _ratio(right, int(is_positive.sum()))
    values = [
        float(np.mean(said == is_positive)),
        precision,
        recall,
        auroc(score, is_positive),
        average_precision(score, is_positive),
        *(f_beta(precision, recall, beta) for beta in betas(asked)),
    ]
    return dict(zip(columns(asked), values, strict=True))


def f_beta(precision: float, recall: float, beta: float) -> float:
    """(1 + β²)·P·R / (β²·P + R)."""
    return _ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def weighted_f1(predicted: Labels, truth: Labels, classes: int) -> float:
    """Each class's F1, weighted by how many examples it has."""
    total = 0.0
    for label in range(classes):
        said, is_it = predicted == label, truth == label
        right = int(np.sum(said & is_it))
        f1 = f_beta(_ratio(right, int(said.sum())), _ratio(right, int(is_it.sum())), 1.0)
        total += f1 * int(is_it.sum())
    return _ratio(total, len(truth))


def auroc(score: Scores, is_positive: npt.NDArray[np.bool_]) -> float | None:
    """P(a positive scores higher than a negative), ties half: from the ranks (Mann-Whitney)."""
    positives = int(is_positive.sum())
    negatives = len(score) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]  # of equal scores the middle one
    above = ranks[is_positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(score: Scores, is_positive: npt.NDArray[np.bool_]) -> float | None:
    """Σ (Rₙ - Rₙ₋₁)·Pₙ over the distinct scores, the highest first."""
    positives = int(is_positive.sum())
    if not positives:
        return None
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    right = np.cumsum(is_positive[order])
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(score) - 1)
    precision = right[ends] / (ends + 1)
    recall = right[ends] / positives
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def softmax(logs: Scores) -> Scores:
    """Over the classes of each row."""
    shifted = np.exp(logs - logs.max(1, keepdims=True))
    shares: Scores = shifted / shifted.sum(1, keepdims=True)
    return shares


def to_classes(completions: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """The distinct ones of all files, in the order in which they appear."""
    return list(dict.fromkeys(one for file in completions for one in file))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0
