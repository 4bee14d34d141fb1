"""The prompts that a report shows: chosen from the dataset, the same for every rank and attempt."""

from typing import NamedTuple

import numpy as np

from finetune_data.read.examples import COMPLETION
from finetune_data.tokenize.dataset import TokenSplit

SAMPLES = 6
MAX_PROMPT_TOKENS = 1024  # longer prompts are not chosen

Tokens = list[int]


class Prompt(NamedTuple):
    """The tokens of a prompt and of its expected completion, and those that end a completion."""

    tokens: Tokens
    expected: Tokens
    ends: frozenset[int] = frozenset()  # of the published model; empty: the expected last token

    @property
    def end_tokens(self) -> frozenset[int]:
        return self.ends or frozenset(self.expected[-1:])


def choose_prompts(
    split: TokenSplit, count: int = SAMPLES, longest: int = MAX_PROMPT_TOKENS
) -> list[Prompt]:
    """Choose up to `count` prompts of at most `longest` tokens, spread evenly over the split.

    In a chat, the expected completion is the last answer. There are fewer prompts if the split has
    fewer examples or too many long prompts.
    """
    found: list[Prompt] = []
    taken = -1
    for turn in range(min(count, len(split))):
        start = max(taken + 1, turn * len(split) // count)
        end = max(start + 1, (turn + 1) * len(split) // count)
        for index in range(start, min(end, len(split))):
            prompt = _last_answer(split, index)
            if prompt is not None and len(prompt.tokens) <= longest:
                found.append(prompt)
                taken = index
                break
    return found


def _last_answer(split: TokenSplit, index: int) -> Prompt | None:
    """Split an example before its last learned span; None if either part would be empty."""
    tokens, roles = split.example(index)
    learned = np.flatnonzero(roles == COMPLETION)
    if not len(learned):
        return None
    end = int(learned[-1]) + 1
    others = np.flatnonzero(roles[:end] != COMPLETION)
    start = int(others[-1]) + 1 if len(others) else 0
    return Prompt(tokens[:start].tolist(), tokens[start:end].tolist()) if start else None
