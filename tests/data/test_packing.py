"""Packing: each example once, no row over the context, always the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_trainer.batching.packing import pack, pack_step

lengths = st.lists(st.integers(1, 40), max_size=60)


@settings(max_examples=200)
@given(lengths, st.integers(1, 32))
def test_every_example_is_in_one_bin_that_holds_it(sizes: list[int], capacity: int) -> None:
    bins = pack(sizes, capacity)
    assert sorted(index for members in bins for index in members) == list(range(len(sizes)))
    for members in bins:
        assert members
        assert sum(sizes[index] for index in members) <= capacity or len(members) == 1
    assert bins == pack(np.array(sizes, np.int64), capacity)


@settings(max_examples=100)
@given(lengths, st.integers(1, 32), st.integers(1, 5))
def test_every_rank_has_the_same_number_of_rows(
    sizes: list[int], capacity: int, ranks: int
) -> None:
    shares = pack_step(sizes, capacity, ranks)
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1
    found = sorted(index for share in shares for members in share for index in members)
    assert found == list(range(len(sizes)))


def test_best_fit_leaves_hardly_anything_empty() -> None:
    random = np.random.default_rng(7)
    sizes = random.lognormal(np.log(119), np.sqrt(2 * np.log(154 / 119)), 20_000).astype(int)
    sizes = np.clip(sizes, 1, 2048)
    bins = pack(sizes, 2048)
    assert sizes.sum() / (len(bins) * 2048) > 0.99


def test_the_fullest_bin_with_enough_room_is_chosen() -> None:
    assert pack([6, 5, 4, 3, 2], 10) == [[0, 2], [1, 3, 4]]
    assert pack([], 10) == []
    assert pack([11, 3], 10) == [[0], [1]]
