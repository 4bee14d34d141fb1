"""Samples: the same prompts each time, and greedy completions."""

from collections.abc import Sequence

import pytest

from finetune_trainer.reporting.samples.completions import complete_prompts, make_samples
from finetune_trainer.reporting.samples.generation import MAX_COMPLETION_TOKENS, Generated, greedy
from finetune_trainer.reporting.samples.prompts import Prompt, choose_prompts
from tests.trainer import support

EXAMPLES = support.random_examples(50, seed=4)


def decode(tokens: Sequence[int]) -> str:
    return " ".join(map(str, tokens))


def test_prompts_are_spread_over_the_file() -> None:
    found = choose_prompts(support.split_of(EXAMPLES), count=5)
    assert found == [Prompt(*EXAMPLES[index]) for index in (0, 10, 20, 30, 40)]


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_a_short_file_gives_what_it_has(count: int) -> None:
    found = choose_prompts(support.split_of(EXAMPLES[:count]), count=4)
    assert len(found) == min(4, count)
    assert len({str(prompt) for prompt in found}) == len(found)


def test_long_and_empty_prompts_are_skipped() -> None:
    split = support.split_of([(list(range(3, 60)), [5, 2]), ([], [5, 2]), ([7], [6, 2])])
    assert choose_prompts(split, count=1, longest=50) == [Prompt([7], [6, 2])]


def test_the_last_answer_of_a_chat_is_completed() -> None:
    split = support.split_of([([3, 4], [5, 6, 2])])
    tokens = [*split.tokens.tolist(), 9, 8, 5, 2, 11]
    roles = [*split.roles.tolist(), 1, 1, 2, 2, 1]
    both = type(split)(*map(_array, (tokens, roles, [0, len(tokens)])))
    assert choose_prompts(both) == [Prompt([3, 4, 5, 6, 2, 9, 8], [5, 2])]


def _array(values: list[int]):  # type: ignore[no-untyped-def]
    import numpy as np

    return np.array(values)


def test_a_completion_ends_with_its_own_end_token_or_at_the_limit() -> None:
    prompts = [Prompt([10], [13, 2]), Prompt([20], [24, 99]), Prompt([30], [31])]
    seen: list[list[list[int]]] = []

    def count_up(rows: Sequence[list[int]]) -> list[int]:
        seen.append([list(row) for row in rows])
        return [2 if row[-1] == 13 else row[-1] + 1 for row in rows]

    assert greedy(prompts, count_up, longest=5) == [
        [11, 12, 13, 2],
        [21, 22, 23, 24, 25],
        [31],
    ]
    assert [len(rows) for rows in seen] == [3, 2, 2, 2, 1]  # completed rows are left out


def test_a_sample_has_expected_and_generated_completions() -> None:
    prompts = [Prompt([1, 2], [3]), Prompt([4], [5, 6])]
    before = complete_prompts(prompts, lambda asked: Generated([[7] for _ in asked]), decode)
    assert before.cut_at is None
    found = make_samples(prompts, decode, before=before.shown, after=None)
    assert [(s.prompt, s.expected, s.before, s.after) for s in found] == [
        ("1 2", "3", "7", None),
        ("4", "5 6", "7", None),
    ]


def test_completions_end_early_together_when_no_pass_is_left() -> None:
    passes = iter([True, True, False])
    prompts = [Prompt([10], [11, 2]), Prompt([20], [24, 99])]
    found = greedy(prompts, lambda rows: [row[-1] + 1 for row in rows], may_pass=passes.__next__)
    assert found == [[11, 12], [21, 22]]


@pytest.mark.parametrize(
    ("completions", "is_spent", "cut_at"),
    [
        ([[5, 2], [7, 8, 9]], True, 3),
        ([[5, 2], [7, 8, 9]], False, None),
        ([[5, 2], [9, 99]], True, None),  # all have ended by themselves
        ([[5] * MAX_COMPLETION_TOKENS, [9, 99]], True, None),
        ([[], []], True, 0),
        ([], True, None),  # a rank that gets no completions
    ],
)
def test_a_completion_that_ended_early_is_reported(
    completions: list[list[int]], is_spent: bool, cut_at: int | None
) -> None:
    prompts = [Prompt([10], [13, 2]), Prompt([20], [24, 99])]
    found = complete_prompts(prompts, lambda asked: Generated(completions, is_spent), decode)
    assert found.cut_at == cut_at
    assert (found.shown is None) == (cut_at == 0)
