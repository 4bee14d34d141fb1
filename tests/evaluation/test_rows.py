"""Which rows are questions, and what they ask."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_data.read.examples import Conversation, Row
from finetune_evaluation.rows import UngradableError, question_of

CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
USER = {"role": "user", "content": "hello\x1b[2J there"}


def test_a_row_asks_its_prompt() -> None:
    found = question_of(Row(7, "a\n->", " yes"))
    assert (found.line, found.prompt, found.reference, found.is_chat) == (7, "a\n->", " yes", False)
    assert found.summary == '"a ->"'


def test_a_chat_asks_what_precedes_its_last_message() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    talk = [USER, {"role": "assistant", "content": "hi"}, USER]
    found = question_of(Conversation(3, [*talk, {"role": "assistant", "content": "yes"}], tools))
    assert (found.prompt, found.reference, found.tools) == (talk, "yes", tools)
    assert found.is_chat
    assert "\x1b" not in found.summary


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([USER, {"role": "assistant", "content": "a"}, USER], "of user, not of the assistant"),
        ([USER, {"role": "assistant", "content": None, "tool_calls": CALL}], "calls a tool"),
        ([USER, {"role": "assistant", "content": "a", "tool_calls": CALL}], "calls a tool"),
        ([{"role": "assistant", "content": "a"}], "no message before"),
    ],
)
def test_a_chat_without_a_text_to_compare_is_left_out(
    messages: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(UngradableError, match=words):
        question_of(Conversation(1, messages))
