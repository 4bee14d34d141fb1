import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.batching.microbatch import MicroBatch, arrange, assemble
from finetune_trainer.step.stepper import target_counts
from tests.trainer.support import Example, split_of

TWO: list[Example] = [([5], [6, 2]), ([7, 8, 9], [2])]


def of(examples: list[Example], *, packed: bool, prompts: bool = True) -> MicroBatch:
    split = split_of(examples) if examples else split_of([([1], [2])])
    return assemble(split, list(range(len(examples))), packed=packed, prompts=prompts)


def test_padded_examples_have_a_row_each_and_their_last_token_is_not_an_input() -> None:
    found = of(TWO, packed=False)
    assert found.inputs.tolist() == [[5, 6, 0], [7, 8, 9]]
    assert found.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found.bounds is None
    assert found.targets.tolist() == [6, 2, 8, 9, 2]
    assert found.input_indices.tolist() == [0, 1, 3, 4, 5]
    assert found.roles.tolist() == [2, 2, 1, 1, 2]
    assert found.owners.tolist() == [0, 0, 1, 1, 1]


def test_packed_examples_share_a_row_and_their_positions_start_at_zero() -> None:
    found = of(TWO, packed=True)
    assert found.inputs.tolist() == [[5, 6, 7, 8, 9]]
    assert found.positions.tolist() == [[0, 1, 0, 1, 2]]
    assert found.bounds == (0, 2, 5)
    assert found.input_indices.tolist() == [0, 1, 2, 3, 4]
    assert found.targets.tolist() == [6, 2, 8, 9, 2]


def test_prompts_without_weight_are_not_targets() -> None:
    for packed in (True, False):
        found = of(TWO, packed=packed, prompts=False)
        assert found.targets.tolist() == [6, 2, 2]
        assert found.inputs.flat[found.input_indices].tolist() == [5, 6, 9]
        assert found.weight(0.0) == 3


def test_a_rank_without_an_example_gets_one_token_without_weight() -> None:
    for packed in (True, False):
        found = of([], packed=packed)
        assert found.inputs.tolist() == [[0]]
        assert len(found.targets) == len(found.input_indices) == found.completions == 0
        assert found.weight(1.0) == 0
        assert found.bounds == ((0, 1) if packed else None)


def test_an_example_of_one_token_has_nothing_to_predict() -> None:
    for packed in (True, False):
        found = of([([], [2]), *TWO], packed=packed)
        assert found.targets.tolist() == [6, 2, 8, 9, 2]
        assert found.owners.tolist() == [1, 1, 2, 2, 2]
        assert found.inputs.flat[found.input_indices].tolist() == [5, 6, 7, 8, 9]
        assert found.completions == 2


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(3, 60), max_size=6),
            st.lists(st.integers(3, 60), min_size=1, max_size=6),
        ),
        max_size=7,
    ),
    st.booleans(),
    st.booleans(),
)
def test_each_target_follows_its_input_in_its_example(
    examples: list[Example], packed: bool, prompts: bool
) -> None:
    found = of(examples, packed=packed, prompts=prompts)
    flat, positions = found.inputs.flatten(), found.positions.flatten()
    for source, target, role, owner in zip(
        found.input_indices, found.targets, found.roles, found.owners, strict=True
    ):
        tokens = [*examples[owner][0], *examples[owner][1]]
        position = positions[source]
        assert flat[source] == tokens[position]
        assert target == tokens[position + 1]
        assert role == (1 if position + 1 < len(examples[owner][0]) else 2)
    wanted = sum(max(0, len(p) + len(c) - 1) for p, c in examples)
    skipped = 0 if prompts else sum(max(0, len(p) - 1) for p, _ in examples)
    assert len(found.targets) == wanted - skipped
    if found.bounds is not None:
        assert found.bounds[-1] == found.inputs.size
        assert sorted(set(found.bounds)) == list(found.bounds)


def test_the_targets_of_a_split_are_counted_without_its_rows() -> None:
    examples = [*TWO, ([], [2]), ([], [4, 4, 2]), ([3], [2])]
    counts = target_counts(split_of(examples))
    for index, example in enumerate(examples):
        found = of([example], packed=True)
        assert counts[index].tolist() == [
            np.count_nonzero(found.roles == 1),
            np.count_nonzero(found.roles == 2),
        ]


def test_examples_keep_their_order() -> None:
    split = split_of(TWO)
    found = arrange([split.example(1), split.example(0)], packed=True, prompts=True)
    assert found.inputs.tolist() == [[7, 8, 9, 5, 6]]
