"""Samples: the same prompts each time, and greedy completions."""

from collections.abc import Sequence

import pytest

from finetune_trainer.reporting.samples.completions import complete_prompts, make_samples
from finetune_trainer.reporting.samples.generation import greedy
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
    before = complete_prompts(prompts, lambda asked: [[7] for _ in asked], decode)
    found = make_samples(prompts, decode, before=before, after=None)
    assert [(s.prompt, s.expected, s.before, s.after) for s in found] == [
        ("1 2", "3", "7", None),
        ("4", "5 6", "7", None),
    ]
