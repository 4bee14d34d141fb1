"""A batch as columns, so that checks count once per batch and not once per row."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property

from finetune_data.read.examples import REASONING, Conversation, Example, Row, is_learned

NUL = "\0"  # in no text, because readers refuse it


class Columns:
    """Examples of one file. The prompt of a chat is everything before the last answer."""

    def __init__(self, examples: Sequence[Example], first: int, file: int) -> None:
        self.examples = examples
        self.first = first  # ordinal of the first example
        self.file = file  # index of the file
        self.is_chat = bool(examples) and isinstance(examples[0], Conversation)

    def __len__(self) -> int:
        return len(self.examples)

    @cached_property
    def prompts(self) -> list[str]:
        return [e.prompt if isinstance(e, Row) else _before(e) for e in self.examples]

    @cached_property
    def completions(self) -> list[str]:
        return [e.completion if isinstance(e, Row) else _answer(e) for e in self.examples]

    @cached_property
    def joined_prompts(self) -> str:
        """All prompts in one text, with a NUL before the first and after each."""
        return f"{NUL}{NUL.join(self.prompts)}{NUL}"

    @cached_property
    def joined_completions(self) -> str:
        return f"{NUL}{NUL.join(self.completions)}{NUL}"

    def texts(self, field: str) -> list[str]:
        return self.prompts if field == "prompt" else self.completions

    def joined(self, field: str) -> str:
        return self.joined_prompts if field == "prompt" else self.joined_completions

    @cached_property
    def lengths(self) -> list[int]:
        """Characters of each example."""
        return [len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)]

    @cached_property
    def has_one_answer_each(self) -> bool:
        """Whether the model learns only the last message of each chat. True for rows."""
        return not self.is_chat or all(_has_one_answer(e) for e in self.examples)


def _has_one_answer(example: Example) -> bool:
    if isinstance(example, Row):
        return True
    return [is_learned(message) for message in example.messages].index(True) == (
        len(example.messages) - 1
    )


def _last_answer(conversation: Conversation) -> int:
    index = len(conversation.messages) - 1
    while not is_learned(conversation.messages[index]):
        index -= 1
    return index


def _before(conversation: Conversation) -> str:
    from orjson import JSONEncodeError, dumps

    value = [conversation.messages[: _last_answer(conversation)], conversation.tools]
    try:
        return dumps(value).decode()
    except JSONEncodeError:  # a number with more than 64 bits
        return json.dumps(value, ensure_ascii=False)


def _answer(conversation: Conversation) -> str:
    message = conversation.messages[_last_answer(conversation)]
    calls = message.get("tool_calls")
    written = json.dumps(calls, ensure_ascii=False) if calls else ""
    return f"{message.get(REASONING, '')}{message['content']}{written}"
