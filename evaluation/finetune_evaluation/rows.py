"""The question and the reference answer of a row of a data file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune_data.read.examples import Conversation, Example, Message, Row
from finetune_data.read.findings import shown

SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Question:
    """What the model gets, and the answer that it should give.

    line: of the file. prompt: a text, or the messages of a chat. reference: as the file has it.
    """

    line: int
    prompt: str | list[Message]
    reference: str
    tools: list[dict[str, Any]] | None = None

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.prompt, str)

    @property
    def summary(self) -> str:
        """The end of the prompt, or of the last message, on one line."""
        text = self.prompt if isinstance(self.prompt, str) else _text_of(self.prompt)
        return shown(" ".join(text.split())[-SHOWN_CHARACTERS:], SHOWN_CHARACTERS)


class UngradableError(ValueError):
    """A row has no answer whose text can be compared."""


def question_of(example: Example) -> Question:
    """The question of a row. The reference of a chat is its last message.

    Raises UngradableError for a chat whose last message is not a text of the assistant.
    """
    if isinstance(example, Row):
        return Question(example.line, example.prompt, example.completion)
    return _of_chat(example)


def _of_chat(chat: Conversation) -> Question:
    *before, last = chat.messages
    content = last.get("content")
    if last["role"] != "assistant":
        raise UngradableError(f"the last message is of {last['role']}, not of the assistant")
    if last.get("tool_calls") or not isinstance(content, str):
        raise UngradableError("the last message calls a tool, which is not compared as text")
    if not before:
        raise UngradableError("there is no message before the answer")
    return Question(chat.line, before, content, chat.tools)


def _text_of(messages: Sequence[Message]) -> str:
    content = messages[-1].get("content")
    return content if isinstance(content, str) else ""
