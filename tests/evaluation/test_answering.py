"""The answers of a model that says what a test tells it, through a real tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.tokenizer import ExampleTokenizer
from finetune_evaluation.answering import LEAST_TOKENS, answers, default_tokens
from finetune_evaluation.grading import grades_of
from finetune_evaluation.metrics import Graded
from finetune_evaluation.rows import Question
from finetune_serving.completion import prompts
from finetune_serving.completion.local_model import LocalModel
from finetune_serving.completion.sampling import Numbers
from tests.data.builders import write_tokenizer

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}:{{ message.content }}</s>{% endfor %}"
    "{% if tools %}{{ tools | length }} tools{% endif %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)
SHARE = 0.75  # the probability of each token that the model says


class Told:
    """Says one text for each prompt, and then the end."""

    def __init__(self, texts: Sequence[list[int]], vocabulary: int) -> None:
        self.asked: list[list[int]] = []
        self._texts = iter(texts)
        self._left: list[int] = []
        self._vocabulary = vocabulary

    def begin(self, tokens: Sequence[int]) -> Numbers:
        self.asked.append([*tokens])
        self._left = [*next(self._texts)]
        return self._next()

    def follow(self, _: int) -> Numbers:
        return self._next()

    def _next(self) -> Numbers:
        found = np.full(self._vocabulary, (1 - SHARE) / (self._vocabulary - 1))
        found[self._left.pop(0)] = SHARE
        logits: Numbers = np.log(found)
        return logits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("model"), chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> ExampleTokenizer:
    return load_tokenizer(folder, "m")


def tokens_of(tokenizer: ExampleTokenizer, text: str) -> list[int]:
    return tokenizer._backend.encode(text, add_special_tokens=False).ids


def ask(
    tokenizer: ExampleTokenizer,
    folder: Path,
    questions: Sequence[Question],
    said: Sequence[str],
    *,
    ends: bool = True,
    max_tokens: int = 16,
    context: int | None = None,
) -> tuple[list[Graded], Told]:
    end = [tokenizer.eos] if ends else tokens_of(tokenizer, "!") * 99
    texts = [[*tokens_of(tokenizer, text), *end] for text in said]
    model = Told(texts, tokenizer._backend.get_vocab_size())
    told: list[tuple[int, int]] = []
    found = list(
        answers(
            model,
            tokenizer,
            LocalModel("m", folder),
            questions,
            grades_of(None, None),
            max_tokens=max_tokens,
            context=context,
            progress=lambda done, total: told.append((done, total)),
        )
    )
    assert told == [(number + 1, len(questions)) for number in range(len(questions))]
    return found, model


def test_each_question_has_its_answer(tokenizer: ExampleTokenizer, folder: Path) -> None:
    questions = [Question(1, "the fox ->", " yes"), Question(4, "the cat ->", " no")]
    found, model = ask(tokenizer, folder, questions, [" yes", " yes"])
    assert [(it.line, it.answer, it.grades["exact match"]) for it in found] == [
        (1, " yes", 1),
        (4, " yes", 0),
    ]
    source = LocalModel("m", folder)
    assert model.asked == [
        prompts.of_text(tokenizer, str(question.prompt), source).tokens for question in questions
    ]


def test_the_probability_is_that_of_the_whole_answer_and_its_end(
    tokenizer: ExampleTokenizer, folder: Path
) -> None:
    [found], _ = ask(tokenizer, folder, [Question(1, "a", "yes")], ["yes"])
    count = len(tokens_of(tokenizer, "yes")) + 1
    assert found.has_ended
    assert math.isclose(found.probability, SHARE**count)


def test_an_answer_without_an_end_is_cut(tokenizer: ExampleTokenizer, folder: Path) -> None:
    [found], _ = ask(
        tokenizer, folder, [Question(1, "a", "yes")], ["yes"], ends=False, max_tokens=8
    )
    assert not found.has_ended
    assert found.answer.startswith("yes")
    assert math.isclose(found.probability, SHARE**8)


def test_a_prompt_that_fills_the_context_has_no_answer(
    tokenizer: ExampleTokenizer, folder: Path
) -> None:
    questions = [Question(1, "a" * 40, "yes"), Question(2, "a", "yes")]
    length = len(prompts.of_text(tokenizer, "a" * 40, LocalModel("m", folder)).tokens)
    found, model = ask(tokenizer, folder, questions, ["yes"], context=length)
    assert [it.answer for it in found] == ["", "yes"]
    assert (found[0].probability, found[0].has_ended) == (0, False)
    assert len(model.asked) == 1


def test_a_chat_is_asked_with_its_tools(tokenizer: ExampleTokenizer, folder: Path) -> None:
    talk = [{"role": "user", "content": "hello"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    _, model = ask(
        tokenizer,
        folder,
        [Question(1, talk, "yes"), Question(2, talk, "yes", tools)],
        ["yes", "yes"],
    )
    texts = [tokenizer.decode(asked) for asked in model.asked]
    assert "tools" not in texts[0]
    assert "1 tools" in texts[1]


def test_the_default_leaves_room_above_the_longest_reference(tokenizer: ExampleTokenizer) -> None:
    assert default_tokens(tokenizer, [Question(1, "a", "b")]) == LEAST_TOKENS
    long = "quick fox " * 40
    count = len(tokens_of(tokenizer, long)) + 1
    found = default_tokens(tokenizer, [Question(1, "a", "b"), Question(2, "a", long)])
    assert found == count + count // 4
