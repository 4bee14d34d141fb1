"""Turns of plain conversations, rendered once instead of twice per turn.

For each sequence of roles, the turns of a conversation of placeholders are rendered both ways, and
its outline is kept. The texts of a conversation are put into the outline, and the result is
compared with one real rendering. A template that treats a text differently, such as one that trims
it, or a text that can mean something to a template, takes the long way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from finetune_data.read.examples import Conversation, Message, is_learned
from finetune_data.read.findings import Finding
from finetune_data.tokenize.chats.turns import ChatTemplate, Turn

PLACEHOLDER = "\ue004{}\ue005"
_PLACEHOLDER = re.compile("\ue004([0-9]+)\ue005")
_MEANINGFUL = ("</", "[/", "<think", "[THINK", "\ue004")  # a block in a text, or a placeholder
_KEYS = {"role", "content", "weight"}
_KEPT = 1000  # outlines

_Fill = Callable[[Sequence[str]], str]
_Shape = tuple[tuple[str, bool], ...]


class _Outline(NamedTuple):
    """The turns of a conversation with gaps, and its text until the last answer."""

    whole: _Fill
    until: int  # the message after the last answer
    turns: list[tuple[_Fill, _Fill, Turn]]  # context, learned


class OutlinedTurns:
    """The turns of conversations under one template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._outlines: dict[_Shape, _Outline | None] = {}

    def turns(self, chat: Conversation) -> list[Turn] | Finding:
        """The turns that the model learns, as `ChatTemplate.turns` finds them."""
        outline = None
        if not chat.tools and all(map(_is_plain, chat.messages)):
            shape = tuple((it["role"], is_learned(it)) for it in chat.messages)
            if shape not in self._outlines and len(self._outlines) < _KEPT:
                self._outlines[shape] = self._outline(chat)
            outline = self._outlines.get(shape)
        if outline is not None:
            quoted = self._template.quoted(chat)
            texts = [message["content"] for message in quoted.messages]
            if outline.whole(texts) == self._template.render(quoted, outline.until):
                return [
                    turn._replace(context=context(texts), learned=learned(texts))
                    for context, learned, turn in outline.turns
                ]
        return self._template.turns(chat)

    def _outline(self, chat: Conversation) -> _Outline | None:
        """None if the template refuses or changes the placeholders."""
        messages = [
            {**message, "content": PLACEHOLDER.format(index)}
            for index, message in enumerate(chat.messages)
        ]
        gaps = chat._replace(messages=messages)
        turns = self._template.turns(gaps)
        if isinstance(turns, Finding):
            return None
        until = 1 + max(i for i, it in enumerate(messages) if is_learned(it))
        whole = self._template.render(gaps, until)
        if whole is None or _PLACEHOLDER.findall(whole) != [str(i) for i in range(until)]:
            return None
        filled = [(_fill(turn.context), _fill(turn.learned), turn) for turn in turns]
        return _Outline(_fill(whole), until, filled)


def _is_plain(message: Message) -> bool:
    text = message["content"]
    return (
        message.keys() <= _KEYS
        and text == text.strip()
        and not any(mark in text for mark in _MEANINGFUL)
    )


def _fill(text: str) -> _Fill:
    """A function that puts texts into the gaps of a rendered text."""
    parts = _PLACEHOLDER.split(text)  # text, number, text, number, ..., text
    indexes = [int(number) for number in parts[1::2]]

    def fill(texts: Sequence[str]) -> str:
        made = parts.copy()
        made[1::2] = [texts[index] for index in indexes]
        return "".join(made)

    return fill
