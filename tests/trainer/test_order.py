import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.batching.order import (
    Costs,
    epoch_order,
    spread,
    step_examples,
    validation_examples,
)

COSTS = Costs(slots=64, overhead=4)


def test_an_epoch_has_every_example_once_and_the_last_step_takes_the_rest() -> None:
    steps = [step_examples(10, 4, seed=1, step=step) for step in (1, 2, 3)]
    assert [len(step) for step in steps] == [4, 4, 2]
    assert sorted(np.concatenate(steps)) == list(range(10))


def test_each_epoch_and_each_seed_has_an_order_of_its_own() -> None:
    first = epoch_order(50, 1, 0).tolist()
    assert first != epoch_order(50, 1, 1).tolist()
    assert first != epoch_order(50, 2, 0).tolist()
    assert first == epoch_order(50, 1, 0).tolist()


def test_the_order_is_the_same_in_all_versions_of_numpy() -> None:
    assert epoch_order(8, 42, 0).tolist() == [7, 1, 6, 4, 3, 5, 0, 2]


def test_a_step_does_not_depend_on_earlier_steps() -> None:
    assert step_examples(10, 4, 1, 5).tolist() == epoch_order(10, 1, 1)[4:8].tolist()


def test_the_validation_batches_are_cyclic() -> None:
    assert [validation_examples(5, 2, turn).tolist() for turn in range(4)] == [
        [0, 1],
        [2, 3],
        [4],
        [0, 1],
    ]


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=70),
    st.integers(1, 9),
    st.integers(1, 300),
    st.integers(0, 100),
)
def test_every_example_is_in_one_micro_batch_of_one_rank_for_any_lengths(
    lengths: list[int], ranks: int, slots: int, overhead: int
) -> None:
    shares = spread(lengths, ranks, Costs(slots, overhead))
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1  # a collective waits for all ranks
    placed = [i for share in shares for part in share for i in part]
    assert sorted(placed) == list(range(len(lengths)))
    most = max(slots, 2, *lengths)  # the longest example has to fit anyway
    for part in (part for share in shares for part in share if len(part) > 1):
        assert len(part) * max(2, *(lengths[i] for i in part)) <= most


def test_examples_of_similar_length_share_a_micro_batch() -> None:
    lengths = [100, 10, 98, 12, 99, 11]
    (share,) = spread(lengths, 1, COSTS)
    assert sorted(sorted(lengths[i] for i in part) for part in share) == [
        [10, 11, 12],
        [98],
        [99],
        [100],
    ]


def test_the_load_of_the_ranks_is_balanced() -> None:
    random = np.random.default_rng(0)
    lengths = random.lognormal(4.7, 0.6, 64).astype(int).tolist()
    shares = spread(lengths, 4, Costs(slots=1024, overhead=24))
    slots = [
        sum(len(part) * max((lengths[i] for i in part), default=0) for part in share)
        for share in shares
    ]
    assert max(slots) < 1.1 * sum(slots) / len(slots)
    assert sum(slots) < 1.15 * sum(lengths)  # padding


def test_a_rank_without_an_example_gets_a_row_without_weight() -> None:
    shares = spread([5], 3, COSTS)
    assert sorted(shares) == [[[]], [[]], [[0]]]


@pytest.mark.parametrize("ranks", [1, 2, 7])
def test_the_examples_of_a_step_do_not_depend_on_the_ranks(ranks: int) -> None:
    lengths = [7, 3, 9, 30, 1, 4, 4, 8]
    placed = [i for share in spread(lengths, ranks, COSTS) for part in share for i in part]
    assert sorted(placed) == list(range(8))


@pytest.mark.parametrize("costs", [Costs(1024, 24), Costs(16384, 24), Costs(8192, 2048)])
def test_a_whole_validation_file_is_distributed(costs: Costs) -> None:
    random = np.random.default_rng(0)
    lengths = random.lognormal(4.7, 0.6, 50_000).astype(int).tolist()
    begin = time.process_time()
    shares = spread(lengths, 2, costs)
    assert time.process_time() - begin < 5
    assert sum(len(part) for share in shares for part in share) == 50_000
