"""From a model's logits to the next token: penalties, temperature, top-p, log-probabilities. Pure.

Logits are one float64 array, a number for each token of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; the names, ranges and defaults of the old completions API."""

    temperature: float = 1.0  # 0: the likeliest token each time
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


def penalized(logits: Numbers, counts: Mapping[int, int], sampling: Sampling) -> Numbers:
    """Less of what was said: logit - count * frequency - (count > 0) * presence.

    counts: how often each token stands in the completion so far; the prompt's are not counted.
    """
    if not counts or not (sampling.presence_penalty or sampling.frequency_penalty):
        return logits
    found = logits.copy()
    said = np.fromiter(counts, dtype=np.int64)
    often = np.fromiter(counts.values(), dtype=np.float64)
    found[said] -= often * sampling.frequency_penalty + sampling.presence_penalty
    return found


def log_probabilities(logits: Numbers) -> Numbers:
    """Logarithms of the softmax."""
    shifted = logits - logits.max()
    found: Numbers = shifted - np.log(np.exp(shifted).sum())
    return found


def nucleus(probabilities: Numbers, top_p: float) -> Numbers:
    """The fewest of the likeliest tokens that have top_p together, scaled to a sum of 1."""
    if top_p >= 1:
        return probabilities
    order = np.argsort(-probabilities, kind="stable")
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = order[before < top_p] if top_p > 0 else order[:1]
    found = np.zeros_like(probabilities)
    found[kept] = probabilities[kept] / probabilities[kept].sum()
    return found


def next_token(
    logits: Numbers, counts: Mapping[int, int], sampling: Sampling, random: np.random.Generator
) -> int:
    """One draw; of equal logits at temperature 0 the first token."""
    wanted = penalized(logits, counts, sampling)
    if sampling.temperature == 0:
        return int(wanted.argmax())
    chances = np.exp(log_probabilities(wanted / sampling.temperature))
    return int(random.choice(len(chances), p=nucleus(chances / chances.sum(), sampling.top_p)))


def likeliest(values: Numbers, count: int) -> list[int]:
    """Tokens of the highest values, the highest first."""
    count = min(count, len(values))
    found = np.argpartition(-values, count - 1)[:count] if count else np.array([], dtype=np.int64)
    return sorted((int(token) for token in found), key=lambda token: (-values[token], token))
