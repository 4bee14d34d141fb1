"""The shares of several training files in an epoch, as pure functions of counts and weights."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.training_files import LEAST_WEIGHT, MOST_REPEATS, MOST_WEIGHT
from finetune_data.prepare.mixture import (
    epoch_examples,
    find_excess,
    most_repeats,
    occurrences,
)

COUNTS = st.integers(1, 10**7)
WEIGHTS = st.integers(1, 10**6).map(lambda thousandths: thousandths / 1000) | st.floats(
    LEAST_WEIGHT, MOST_WEIGHT
)
FILES = st.lists(st.tuples(COUNTS, WEIGHTS), min_size=2, max_size=16)


@pytest.mark.parametrize(
    ("examples", "weights", "wanted"),
    [
        ([10_000, 200], [3, 1], [10_000, 3_333]),
        ([200, 10_000], [1, 3], [3_333, 10_000]),
        ([10, 10], [1, 1], [10, 10]),
        ([10, 4], [1, 1], [10, 10]),
        ([10, 30], [0.1, 0.3], [10, 30]),  # 0.3 / 0.1 is less than 3 as a binary number
        ([3, 1], [2, 1], [3, 2]),  # a half is rounded up
        ([5, 7, 1], [1, 0.5, 0.25], [14, 7, 4]),
        ([10, 4], None, [10, 4]),
    ],
)
def test_an_epoch_has_the_examples_in_the_proportions_of_the_weights(
    examples: list[int], weights: list[float] | None, wanted: list[int]
) -> None:
    assert epoch_examples(examples, weights) == wanted


@settings(max_examples=40)
@given(FILES)
def test_every_example_occurs_and_no_epoch_is_longer_than_necessary(
    files: list[tuple[int, float]],
) -> None:
    examples, weights = [n for n, _ in files], [w for _, w in files]
    found = epoch_examples(examples, weights)
    assert all(count >= n for count, n in zip(found, examples, strict=True))
    assert any(count == n for count, n in zip(found, examples, strict=True))
    exact = [Fraction(repr(float(weight))) for weight in weights]
    scale = max(n / weight for n, weight in zip(examples, exact, strict=True))
    total = scale * sum(exact)
    assert abs(sum(found) - total) <= Fraction(len(files), 2)
    for count, weight in zip(found, exact, strict=True):
        assert abs(count - total * weight / sum(exact)) <= Fraction(1, 2)


@settings(max_examples=20)
@given(FILES, st.sampled_from([2, 3, 10]))
def test_only_the_proportions_matter(files: list[tuple[int, float]], factor: int) -> None:
    examples = [n for n, _ in files]
    whole = [float(round(weight * 100)) or 1.0 for _, weight in files]
    larger = [weight * factor for weight in whole]
    assert epoch_examples(examples, whole) == epoch_examples(examples, larger)


@settings(max_examples=50)
@given(st.integers(1, 2_000), st.integers(0, 40_000), st.integers(1, 700))
def test_repeats_are_spread_evenly_and_blocks_are_those_of_the_whole(
    examples: int, more: int, block: int
) -> None:
    in_epoch = examples + more
    found = occurrences(examples, in_epoch, 0, examples)
    assert found.sum() == in_epoch
    assert found.min() >= 1
    assert found.max() == most_repeats(examples, in_epoch)
    assert found.max() - found.min() <= 1
    even = np.arange(1, examples + 1) * in_epoch / examples
    assert np.abs(np.cumsum(found) - even).max() < 1
    starts = range(0, examples, block)
    parts = [occurrences(examples, in_epoch, a, min(examples, a + block)) for a in starts]
    assert np.concatenate(parts).tolist() == found.tolist()


@settings(max_examples=40)
@given(FILES)
def test_a_file_that_is_too_small_is_found_and_the_proposed_weights_work(
    files: list[tuple[int, float]],
) -> None:
    examples, weights = [n for n, _ in files], [w for _, w in files]
    counts = zip(examples, epoch_examples(examples, weights), strict=True)
    repeats = [most_repeats(n, in_epoch) for n, in_epoch in counts]
    found = find_excess(examples, weights)
    if max(repeats) <= MOST_REPEATS:
        assert found is None
        return
    assert found is not None
    assert found.repeats == repeats[found.file] == max(repeats)
    if found.weights is not None:
        assert find_excess(examples, found.weights) is None
        assert all(LEAST_WEIGHT <= weight <= MOST_WEIGHT for weight in found.weights)
        kept = [i for i, count in enumerate(repeats) if count <= MOST_REPEATS]
        factors = {Fraction(repr(found.weights[i])) / Fraction(repr(weights[i])) for i in kept}
        assert max(factors) == pytest.approx(float(min(factors)))


def test_the_proposed_weights_change_as_little_as_possible() -> None:
    found = find_excess([10_000, 3, 500], [3, 1, 2])
    assert found is not None
    assert (found.file, found.repeats, found.weights) == (1, 1111, [3, 0.09, 2])
    assert find_excess([10_000, 3, 500], None) is None
    assert find_excess([10_000, 100], [1, 1]) is None  # exactly 100 times
    tiny = find_excess([10**9, 1], [1000, 1000])
    assert tiny is not None
    assert tiny.weights is None
