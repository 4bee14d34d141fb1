"""The confusion matrix."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.evaluation.confusion import ConfusionMatrix

TRUTH = [0, 0, 0, 1, 1, 2]
PREDICTED = [0, 0, 1, 1, 1, 0]


def test_counts_are_indexed_by_truth_and_prediction() -> None:
    found = ConfusionMatrix.of(["no", "yes", "maybe"], TRUTH, PREDICTED)
    assert found.labels == ["no", "yes", "maybe"]
    assert found.counts == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert [found.recall(row) for row in range(3)] == [pytest.approx(2 / 3), 1.0, 0.0]
    assert [found.precision(row) for row in range(3)] == [
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
        None,
    ]
    assert found.majority == 0.5
    assert found.worst() == ("no", "yes", 1, 3)


def test_rare_classes_share_the_last_row_and_column() -> None:
    truth = [*range(30), *([7] * 5)]
    found = ConfusionMatrix.of([f"c{n}" for n in range(30)], truth, truth, shown=4)
    assert found.labels == ["c7", "c0", "c1", "27 other classes"]
    assert found.counts == [[6, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 27]]
    assert found.recall(3) is None  # right and wrong among the others cannot be distinguished
    assert found.majority == pytest.approx(6 / 35)
    assert found.worst() is None


def test_without_examples_nothing_is_divided() -> None:
    found = ConfusionMatrix.of(["no", "yes"], [], [])
    assert (found.examples, found.majority, found.worst()) == (0, 0.0, None)
    assert found.recall(0) is None
    assert found.shade(0, 1) == 0


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60))
def test_no_example_is_lost(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = ConfusionMatrix.of([str(n) for n in range(41)], truth, predicted)
    assert found.examples == len(pairs)
    size = len(found.labels)
    assert size == 20
    assert all(0 <= found.shade(r, c) <= 10 for r in range(size) for c in range(size))
