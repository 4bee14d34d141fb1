"""Classification metrics as OpenAI's fine-tuning guide defines them. Pure NumPy.

scores: [examples, classes], a probability for each class; truth: [examples], indices of classes.
A ratio with a denominator of zero is 0. A metric that needs two classes is None if there is only
one; its cell in results.csv stays empty.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune_api.tasks import Classification

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
PREFIX = "classification/"


def columns(requested: Classification) -> list[str]:
    """The columns of a binary task (with a positive class) or of a multiclass task.

    Their order is that of OpenAI's fine-tunes API.
    """
    if requested.positive_class is None:
        names = ["accuracy", "weighted_f1_score"]
    else:
        names = ["accuracy", "precision", "recall", "auroc", "auprc"]
        names += [f"f{float(beta)!r}" for beta in betas(requested)]
    return [PREFIX + name for name in names]


def betas(requested: Classification) -> list[float]:
    """The betas of the F-scores: 1 always comes first."""
    return [1.0, *(float(beta) for beta in requested.betas if float(beta) != 1.0)]


def measure(
    scores: Scores, truth: Labels, requested: Classification, positive: int | None
) -> dict[str, float | None]:
    """Compute each of `columns` for the scores of the whole validation file."""
    if positive is None:
        predicted = scores.argmax(1)
        values: list[float | None] = [
            float(np.mean(predicted == truth)),
            weighted_f1(predicted, truth, scores.shape[1]),
        ]
        return dict(zip(columns(requested), values, strict=True))
    is_positive, score = truth == positive, scores[:, positive]
    is_predicted = score > 0.5
    right = int(np.sum(is_predicted & is_positive))
    precision = _ratio(right, int(is_predicted.sum()))
    recall = _ratio(right, int(is_positive.sum()))
    values = [
        float(np.mean(is_predicted == is_positive)),
        precision,
        recall,
        auroc(score, is_positive),
        average_precision(score, is_positive),
        *(f_beta(precision, recall, beta) for beta in betas(requested)),
    ]
    return dict(zip(columns(requested), values, strict=True))


def f_beta(precision: float, recall: float, beta: float) -> float:
    """(1 + β²)·P·R / (β²·P + R)."""
    return _ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)


def weighted_f1(predicted: Labels, truth: Labels, classes: int) -> float:
    """The mean of the F1 of all classes, weighted by their numbers of examples."""
    total = 0.0
    for label in range(classes):
        is_predicted, is_label = predicted == label, truth == label
        right = int(np.sum(is_predicted & is_label))
        f1 = f_beta(_ratio(right, int(is_predicted.sum())), _ratio(right, int(is_label.sum())), 1.0)
        total += f1 * int(is_label.sum())
    return _ratio(total, len(truth))


def auroc(score: Scores, is_positive: npt.NDArray[np.bool_]) -> float | None:
    """The probability that a positive scores higher than a negative; ties count half.

    Computed from ranks, as the Mann-Whitney U statistic.
    """
    positives = int(is_positive.sum())
    negatives = len(score) - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]  # equal scores share their mean rank
    above = ranks[is_positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(score: Scores, is_positive: npt.NDArray[np.bool_]) -> float | None:
    """Σ (Rₙ - Rₙ₋₁)·Pₙ over the distinct scores in descending order."""
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
    """Turn log-probabilities into shares that sum to 1 in each row."""
    shifted = np.exp(logs - logs.max(1, keepdims=True))
    shares: Scores = shifted / shifted.sum(1, keepdims=True)
    return shares


def to_classes(completions: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """The distinct completions of all files in order of first appearance."""
    return list(dict.fromkeys(one for file in completions for one in file))


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0
