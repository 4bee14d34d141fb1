"""The report shows what is learned of the first examples, and what ends answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from finetune_data.tokenize.dataset import LearnedEnd, SplitCounts, TokenSplit
from finetune_data.tokenize.encoded import How
from finetune_trainer.reporting.card import card
from finetune_trainer.reporting.learned_examples import (
    EXAMPLES_SHOWN,
    TOKENS_SHOWN,
    learned_examples,
)
from finetune_trainer.reporting.page import page
from finetune_trainer.reporting.report_data import ExampleSpan, LearnedExample, ReportData
from tests.trainer import support as trainer_support
from tests.trainer.reporting import support
from tests.trainer.reporting.test_page import HOSTILE, Page


def names(tokens: Sequence[int]) -> list[str]:
    return [f"t{token}" for token in tokens]


def split_of(tokens: list[int], roles: list[int]) -> TokenSplit:
    return TokenSplit(
        np.array(tokens, np.int32), np.array(roles, np.uint8), np.array([0, len(tokens)])
    )


def kinds(example: LearnedExample) -> list[tuple[str, int]]:
    return [(span.kind, span.count) for span in example.spans]


def test_the_first_examples_are_spans_of_context_learned_and_ends() -> None:
    examples = trainer_support.random_examples(9, seed=3)
    found = learned_examples(trainer_support.split_of(examples), names)
    assert len(found) == EXAMPLES_SHOWN
    for (prompt, completion), example in zip(examples, found, strict=False):
        assert (example.context, example.learned) == (len(prompt), len(completion))
        spans = [("context", prompt), ("learned", completion[:-1]), ("end", completion[-1:])]
        expected = [
            ExampleSpan(kind=kind, tokens=names(tokens), count=len(tokens))
            for kind, tokens in spans
            if tokens
        ]
        assert example.spans == expected


def test_the_start_token_is_context_and_each_answer_of_a_chat_has_an_end() -> None:
    split = split_of([0, 5, 6, 7, 2, 8, 9, 2], [0, 1, 2, 2, 2, 1, 2, 2])
    [example] = learned_examples(split, names)
    assert kinds(example) == [
        *(("context", 1), ("context", 1), ("learned", 2), ("end", 1)),
        *(("context", 1), ("learned", 1), ("end", 1)),
    ]


@pytest.mark.parametrize("prompt", [1, TOKENS_SHOWN // 2, TOKENS_SHOWN, 5 * TOKENS_SHOWN])
@pytest.mark.parametrize("completion", [1, 2, TOKENS_SHOWN, 5 * TOKENS_SHOWN])
def test_the_middle_of_a_long_example_is_left_out(prompt: int, completion: int) -> None:
    total = prompt + completion
    split = split_of([*range(total)], [1] * prompt + [2] * completion)
    [example] = learned_examples(split, names)
    assert (example.context, example.learned) == (prompt, completion)
    shown = [text for span in example.spans for text in span.tokens]
    half = TOKENS_SHOWN // 2
    if total <= TOKENS_SHOWN:
        assert shown == names(range(total))
        assert "omitted" not in dict(kinds(example))
        return
    assert shown == names([*range(half), *range(total - half, total)])
    assert sum(count for _, count in kinds(example)) == total
    assert dict(kinds(example))["omitted"] == total - TOKENS_SHOWN
    assert kinds(example)[-1] == ("end", 1)


def chats(how: How = "template", examples: int = 2000) -> ReportData:
    whole = support.dataset()
    counts = SplitCounts(examples=examples, tokens=9000, lines=1010, skipped_lines=10)
    end = LearnedEnd(token=3, text="<|im_end|>", answers=2500, how=how)
    return support.report(
        50,
        results=support.results(50),
        dataset=whole.replace(
            data_kind="chat", ends=[end], splits={**whole.splits, "train": counts}
        ),
        examples=[
            LearnedExample(
                context=2,
                learned=2,
                spans=[
                    ExampleSpan(kind="context", tokens=["<|im_start|>", "user\n"], count=2),
                    ExampleSpan(kind="learned", tokens=[" yes"], count=1),
                    ExampleSpan(kind="end", tokens=["<|im_end|>"], count=1),
                ],
            )
        ],
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("template", "the chat template writes it after each answer, and the model learns it"),
        ("following", "the chat template writes it only before another message"),
        ("added", "the chat template writes no end of an answer, so the end-of-sequence token"),
    ],
)
def test_the_page_and_the_card_say_what_ends_an_answer_and_how(how: How, words: str) -> None:
    data = chats(how)
    found = Page(page(data)).text
    assert f'"<|im_end|>" ends 2,500 answers: {words}' in found
    assert words in card(data)
    assert '"\\<\\|im\\_end\\|\\>" ends 2,500 answers' in card(data)


def test_conversations_that_became_more_examples_are_counted() -> None:
    text = "from 1,000 conversations, because the chat template writes earlier turns differently"
    assert text in Page(page(chats())).text
    assert text in card(chats())
    for data in (chats(examples=1000), support.report(50)):
        assert "conversations, because" not in card(data)


def test_rows_are_no_chats() -> None:
    end = LearnedEnd(token=2, text="</s>", answers=2000, how="added")
    data = support.report(50, dataset=support.dataset(ends=[end]))
    assert '"</s>" ends 2,000 answers' in Page(page(data)).text
    assert "added after each completion, and learned with it" in card(data)


def test_the_page_marks_the_tokens_by_what_they_are() -> None:
    found = Page(page(chats()))
    marked = [attributes["class"] for attributes in found.of("b")]
    assert marked == [*("context", "learned", "end"), *("context", "learned", "end")]
    assert "user↵\n" in found.texts
    assert "4 tokens: 2 context, 2 learned" in found.text


def test_the_texts_of_tokens_are_never_markup() -> None:
    span = ExampleSpan(kind="learned", tokens=[HOSTILE], count=1)
    hostile = chats().replace(examples=[LearnedExample(context=0, learned=1, spans=[span])])
    found = Page(page(hostile))
    assert not {"script", "img"} & {tag for tag, _ in found.elements}
    assert "<script>alert(1)</script>" in found.text


def test_a_report_without_examples_has_no_such_part() -> None:
    assert "What is learned" not in Page(page(support.report(50))).text


def test_repeats_of_an_example_are_shown_once() -> None:
    split = trainer_support.split_of([([n], [9]) for n in (4, 4, 4, 5, 5, 6, 7)])
    shown = [example.spans[0].tokens for example in learned_examples(split, names)]
    assert shown == [names([4]), names([5]), names([6])]
