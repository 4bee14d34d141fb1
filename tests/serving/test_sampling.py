"""Penalties, temperature, top-p and log-probabilities against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from finetune_serving.completion.sampling import (
    Sampling,
    likeliest,
    log_probabilities,
    next_token,
    nucleus,
    penalized,
)

LOGITS = arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-50, 50))


@pytest.mark.parametrize(
    ("presence", "frequency", "expected"),
    [
        (0, 0, [1.0, 2.0, 3.0, 4.0]),
        (0.5, 0, [1.0, 1.5, 3.0, 3.5]),
        (0, 0.25, [1.0, 1.75, 3.0, 3.25]),
        (0.5, 0.25, [1.0, 1.25, 3.0, 2.75]),
        (-2, -1, [1.0, 5.0, 3.0, 9.0]),
    ],
)
def test_a_penalty_counts_once_for_presence_and_each_time_for_frequency(
    presence: float, frequency: float, expected: list[float]
) -> None:
    sampling = Sampling(presence_penalty=presence, frequency_penalty=frequency)
    logits = np.array([1.0, 2.0, 3.0, 4.0])
    assert penalized(logits, {1: 1, 3: 3}, sampling).tolist() == expected
    assert logits.tolist() == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (0, [0, 1, 0, 0]),
        (0.4, [0, 1, 0, 0]),
        (0.5, [0, 1, 0, 0]),
        (0.51, [0, 0.625, 0.375, 0]),
        (0.8, [0, 0.625, 0.375, 0]),
        (0.85, [0.125 / 0.925, 0.5 / 0.925, 0.3 / 0.925, 0]),
        (1, [0.125, 0.5, 0.3, 0.075]),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, expected: list[float]) -> None:
    found = nucleus(np.array([0.125, 0.5, 0.3, 0.075]), top_p)
    assert found == pytest.approx(expected)


@given(LOGITS, st.floats(0.01, 0.999))
def test_a_nucleus_is_minimal_and_sums_to_one(logits: np.ndarray, top_p: float) -> None:  # type: ignore[type-arg]
    chances = np.exp(log_probabilities(logits))
    found = nucleus(chances, top_p)
    kept = chances[found > 0]
    assert found.sum() == pytest.approx(1)
    assert kept.sum() >= top_p - 1e-9
    assert kept.sum() - kept.min() < top_p + 1e-9
    assert kept.min() >= chances[found == 0].max(initial=0)


@given(LOGITS)
def test_log_probabilities_are_those_of_a_softmax(logits: np.ndarray) -> None:  # type: ignore[type-arg]
    total = math.fsum(math.exp(value) for value in logits - logits.max())
    expected = [value - logits.max() - math.log(total) for value in logits]
    assert log_probabilities(logits) == pytest.approx(expected, abs=1e-9)


@given(LOGITS, st.integers(0, 10))
def test_the_likeliest_come_first_and_equals_by_their_number(
    logits: np.ndarray,  # type: ignore[type-arg]
    count: int,
) -> None:
    found = [float(logits[token]) for token in likeliest(logits, count)]
    assert found == sorted(logits.tolist(), reverse=True)[:count]


def test_temperature_zero_takes_the_likeliest_after_the_penalties() -> None:
    logits, random = np.array([1.0, 3.0, 2.5]), np.random.default_rng(0)
    assert next_token(logits, {}, Sampling(temperature=0), random) == 1
    sampling = Sampling(temperature=0, frequency_penalty=0.3)
    assert next_token(logits, {1: 1}, sampling, random) == 1
    assert next_token(logits, {1: 2}, sampling, random) == 2


@pytest.mark.parametrize(
    ("temperature", "top_p", "expected"),
    [(1, 1, [0.1, 0.2, 0.7]), (0.5, 1, [0.01 / 0.54, 0.04 / 0.54, 0.49 / 0.54]),
     (2, 1, [0.1997, 0.2824, 0.5179]), (1, 0.85, [0, 2 / 9, 7 / 9])],
)  # fmt: skip
def test_draws_have_the_shares_that_temperature_and_top_p_give(
    temperature: float, top_p: float, expected: list[float]
) -> None:
    """4,000 draws with a fixed seed: within four standard deviations."""
    logits, random = np.log(np.array([0.1, 0.2, 0.7])) + 5, np.random.default_rng(7)
    sampling = Sampling(temperature=temperature, top_p=top_p)
    drawn = [next_token(logits, {}, sampling, random) for _ in range(4000)]
    shares = np.bincount(drawn, minlength=3) / 4000
    for share, wanted in zip(shares, expected, strict=True):
        assert abs(share - wanted) <= 4 * math.sqrt(wanted * (1 - wanted) / 4000) + 1e-4


def test_a_bias_is_added_to_the_logit_of_its_token() -> None:
    logits = np.array([1.0, 2.0, 3.0])
    sampling = Sampling(frequency_penalty=1, logit_bias={0: 5.0, 2: -1.5})
    assert penalized(logits, {}, sampling).tolist() == [6.0, 2.0, 1.5]
    assert penalized(logits, {0: 2}, sampling).tolist() == [4.0, 2.0, 1.5]
    assert logits.tolist() == [1.0, 2.0, 3.0]
