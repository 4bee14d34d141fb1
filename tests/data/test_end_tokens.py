"""A fine-tuned model stops where it has learned to, and then where its base model did."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from finetune_data.read.examples import COMPLETION, PROMPT
from finetune_data.tokenize import end_tokens as module
from finetune_data.tokenize.dataset import (
    Dataset,
    DatasetManifest,
    DatasetSource,
    LearnedEnd,
    TokenSplit,
)
from finetune_data.tokenize.end_tokens import configured_ends, end_tokens, valid_tokens
from finetune_data.tokenize.loading import load_tokenizer
from tests.data.builders import write_json, write_tokenizer

Example = Sequence[tuple[int, Sequence[int]]]  # runs of tokens of one role


def dataset_of(*examples: Example, ends: Sequence[int] = ()) -> Dataset:
    tokens = [token for example in examples for _, run in example for token in run]
    roles = [role for example in examples for role, run in example for _ in run]
    lengths = [sum(len(run) for _, run in example) for example in examples]
    split = TokenSplit(
        np.array(tokens, np.int32),
        np.array(roles, np.uint8),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    source = DatasetSource(tokenizer_sha256="0" * 64, context_length=64, inputs={})
    learned = [LearnedEnd(token=end, text="", answers=1, how="template") for end in ends]
    manifest = DatasetManifest(source=source, splits={}, files=[], ends=learned)
    return Dataset(split, None, manifest)


ANSWER = ((PROMPT, [9, 2, 9]), (COMPLETION, [8, 7, 2]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """0 is <s>, 1 is </s>, the tokenizer's end, and 2 is <unk>."""
    return write_tokenizer(tmp_path)


def test_the_learned_end_is_first_and_those_of_the_base_model_follow(folder: Path) -> None:
    write_json(folder / "generation_config.json", {"eos_token_id": [5, 2]})
    config = {"model_type": "llama", "vocab_size": 50, "eos_token_id": 6}
    write_json(folder / "config.json", config | {"text_config": {"eos_token_id": [6, 7]}})
    tokenizer = load_tokenizer(folder, "m")
    learned = dataset_of(((PROMPT, [9]), (COMPLETION, [8, 2])), ends=[2])
    assert end_tokens(folder, learned, tokenizer) == [2, 5, 6, 7, 1]


def test_a_token_inside_of_answers_does_not_end_them(folder: Path) -> None:
    """A template can write it between the parts of an answer."""
    write_json(folder / "generation_config.json", {"eos_token_id": [8, 5]})
    tokenizer = load_tokenizer(folder, "m")
    assert end_tokens(folder, dataset_of(ANSWER, ends=[7, 2]), tokenizer) == [2, 5, 1]
    assert end_tokens(folder, dataset_of(ANSWER, ends=[8]), tokenizer) == [8, 5, 1]


def test_the_ends_of_a_dataset_of_an_earlier_version_are_observed(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, "m")
    other = ((PROMPT, [9]), (COMPLETION, [8, 1]))
    cut = ((PROMPT, [9]), (COMPLETION, [8, 30]))  # 30 is no control token
    assert end_tokens(folder, dataset_of(ANSWER, other, ANSWER, cut), tokenizer) == [2, 1]
    assert end_tokens(folder, dataset_of(cut), tokenizer) == [1]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 24])
def test_runs_across_chunks_are_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    chance = random.Random(chunk)
    examples: list[Example] = [
        [(chance.choice([0, 1, 2]), [chance.randrange(6) for _ in range(chance.randint(0, 4))])]
        + [(2, [chance.randrange(6)])] * chance.randint(0, 2)
        for _ in range(40)
    ]
    split = dataset_of(*examples).train
    inside, last = set(), []
    for index in range(len(split)):
        tokens, roles = split.example(index)
        for place, (token, role) in enumerate(zip(tokens.tolist(), roles.tolist(), strict=True)):
            if role == COMPLETION:
                is_inside = place + 1 < len(roles) and roles[place + 1] == COMPLETION
                inside |= {token} if is_inside else set()
                last += [] if is_inside else [token]
    for wanted in ({0, 1, 2, 3, 4, 5}, {3}, {9}):
        assert module._tokens_inside(split, wanted) == inside & wanted
        found = module._observed_ends(split, wanted)
        assert set(found) == set(last) & wanted
        assert [last.count(token) for token in found] == sorted(map(last.count, found))[::-1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, [5]),
        ([5, 6], [5, 6]),
        (None, []),
        ("5", []),
        (-1, []),
        (True, []),
        ([True, -1, "x", 99, 3, [4], 2.0], [3]),
        ({"a": 1}, []),
    ],
)
def test_only_token_ids_count(value: object, expected: list[int]) -> None:
    assert valid_tokens(value, 50) == expected


@pytest.mark.parametrize("content", ["{", "[1]", '{"eos_token_id": "x"}'])
def test_a_broken_generation_config_is_ignored(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    assert configured_ends(folder) == []
    assert load_tokenizer(folder, "m").eos == 1
