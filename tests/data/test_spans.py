"""Examples as spans of roles, and the positions of the tokens that end answers."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_data.read.examples import COMPLETION
from finetune_data.read.findings import Finding
from finetune_data.tokenize.encoded import Encoded, TurnEnd
from finetune_data.tokenize.loading import load_tokenizer
from finetune_data.tokenize.spans import count_roles, find_ends, find_spans, visible
from tests.data.gallery.conversations import CHATS
from tests.data.gallery.families import FAMILIES

roles = st.lists(st.sampled_from([0, 1, 2, 10]), max_size=60).map(bytes)


@given(roles)
def test_spans_cover_an_example_and_differ_from_their_neighbors(found: bytes) -> None:
    spans = [*find_spans(found)]
    assert b"".join(bytes([it.role]) * (it.stop - it.start) for it in spans) == found
    assert all(one.stop == other.start for one, other in itertools.pairwise(spans))
    assert all(one.role != other.role for one, other in itertools.pairwise(spans))
    assert count_roles(found) == (len(found) - found.count(COMPLETION), found.count(COMPLETION))


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(10, 99), max_size=3),  # context; there can be none
            st.lists(st.integers(10, 99), max_size=3),  # the answer
            st.sampled_from([TurnEnd(1, "template"), TurnEnd(2, "following"), TurnEnd(1, "added")]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_each_answer_has_its_end(turns: list[tuple[list[int], list[int], TurnEnd]]) -> None:
    tokens: list[int] = []
    marks = b""
    expected = {}
    for context, answer, end in turns:
        tokens += [*context, *answer, end.token]
        marks += b"\1" * len(context) + b"\2" * (len(answer) + 1)
        expected[len(tokens) - 1] = end
    assert find_ends(Encoded(tokens, marks, tuple(expected.values()))) == expected


@pytest.mark.parametrize("name", ["gpt_oss", "llama2", "alpaca"])
def test_the_ends_of_real_templates_are_where_the_tokenizer_says(name: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(FAMILIES[name].write(tmp_path / name), name)
    answers = 0
    for chat in CHATS.values():
        [found] = tokenizer.encode([chat.parsed()])
        for example in () if isinstance(found, Finding) else found:
            ends = find_ends(example)
            assert tuple(ends.values()) == example.endings
            assert [example.tokens[at] for at in ends] == [end.token for end in example.endings]
            answers += len(ends)
    assert answers > 10


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("two\n\n", "two↵↵"),
        ("\ta", "→a"),
        ("\x1b[31m\x00", "\\x1b[31m\\x00"),
        ("\u202eabc\u200b", "\\u202eabc\\u200b"),  # direction and width of a text
        ("日本 👍", "日本 👍"),
    ],
)
def test_no_text_of_a_token_controls_a_terminal(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text).isprintable()
