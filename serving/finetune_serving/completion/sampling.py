"""Samples the next token: penalties, temperature, top-p, and log probabilities. Pure.

Logits have the shape (vocabulary size,) and the type float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters with the names, ranges, and defaults of OpenAI's completions API."""

    temperature: float = 1.0  # 0: always the likeliest token
    top_p: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added to the logit of a token


def penalized(logits: Numbers, counts: Mapping[int, int], sampling: Sampling) -> Numbers:
    """Apply the penalties and biases: logit + bias - count * frequency - (count > 0) * presence.

    counts: occurrences of each token in the completion so far, without the prompt.
    """
    has_penalties = counts and (sampling.presence_penalty or sampling.frequency_penalty)
    if not has_penalties and not sampling.logit_bias:
        return logits
    found = logits.copy()
    for token, bias in sampling.logit_bias.items():
        found[token] += bias
    if not has_penalties:
        return found
    tokens = np.fromiter(counts, dtype=np.int64)
    often = np.fromiter(counts.values(), dtype=np.float64)
    found[tokens] -= often * sampling.frequency_penalty + sampling.presence_penalty
    return found


def log_probabilities(logits: Numbers) -> Numbers:
    """The logarithm of the softmax."""
    shifted = logits - logits.max()
    found: Numbers = shifted - np.log(np.exp(shifted).sum())
    return found


def nucleus(probabilities: Numbers, top_p: float) -> Numbers:
    """The smallest set of likeliest tokens with a total of top_p, scaled to a sum of 1."""
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
    """Sample one token. At temperature 0, the first of the tokens with the highest logit."""
    wanted = penalized(logits, counts, sampling)
    if sampling.temperature == 0:
        return int(wanted.argmax())
    chances = np.exp(log_probabilities(wanted / sampling.temperature))
    return int(random.choice(len(chances), p=nucleus(chances / chances.sum(), sampling.top_p)))


def likeliest(values: Numbers, count: int) -> list[int]:
    """The tokens with the highest values, the highest first."""
    count = min(count, len(values))
    found = np.argpartition(-values, count - 1)[:count] if count else np.array([], dtype=np.int64)
    return sorted((int(token) for token in found), key=lambda token: (-values[token], token))
