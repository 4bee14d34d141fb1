"""Text from tokens: nothing is emitted that a stop sequence or an incomplete character removes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_serving.completion.text import TextStream, final_length, find_stop

WORDS = st.text("abc", max_size=12)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@pytest.mark.parametrize(
    ("text", "stops", "at"),
    [
        ("abcd", [], None),
        ("abcd", ["x"], None),
        ("abcd", ["cd", "b"], 1),
        ("abcd", ["bcd", "c"], 2),  # c is complete before bcd
        ("aab", ["ab", "aab"], 0),
        ("\n\n###", ["###", "\n"], 0),
    ],
)
def test_the_stop_that_is_complete_first_counts(text: str, stops: list[str], at: int) -> None:
    assert find_stop(text, stops) == at


@given(WORDS, STOPS, st.data())
def test_the_emitted_text_does_not_depend_on_its_pieces(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    at = find_stop(text, stops)
    told, end = "", 0
    while end < len(text):
        end = data.draw(st.integers(end + 1, len(text)))
        if find_stop(text[:end], stops) is not None:
            break
        told = text[: final_length(text[:end], stops)]
        assert text[:at].startswith(told)
    found = find_stop(text[:end], stops)
    assert text[:found] == text[:at] if at is not None else found is None


@given(WORDS, STOPS, WORDS)
def test_what_is_certain_stays_whatever_follows(text: str, stops: list[str], more: str) -> None:
    sure = final_length(text, stops)
    if find_stop(text, stops) is None:
        at = find_stop(text + more, stops)
        assert at is None or at >= sure


def utf8(tokens: Sequence[int]) -> str:
    """A token a byte, as byte-level tokenizers split a rare character."""
    return bytes(tokens).decode("utf-8", "replace")


@settings(max_examples=50)
@given(st.text(max_size=8), st.text(max_size=8))
def test_only_complete_characters_are_emitted(prompt: str, text: str) -> None:
    stream = TextStream(utf8, prompt.encode())
    for byte in text.encode():
        stream.add(byte)
        assert text.startswith(stream.text)
    assert stream.text == text.rstrip("\N{REPLACEMENT CHARACTER}") or stream.text == text
    stream.end()
    assert stream.text == text


def test_an_incomplete_character_at_the_end_is_marked() -> None:
    stream = TextStream(utf8, b"a")
    stream.add("é".encode()[0])
    assert stream.text == ""
    stream.end()
    assert stream.text == "\N{REPLACEMENT CHARACTER}"


def test_the_first_space_is_kept_where_the_tokenizer_drops_a_texts_first() -> None:
    """As SentencePiece's decoder does."""
    words = {1: "Is", 2: " it", 3: " so"}
    stream = TextStream(lambda tokens: "".join(words[it] for it in tokens).lstrip(), [1])
    stream.add(2)
    stream.add(3)
    assert stream.text == " it so"
