"""What is learned, by transformers' `apply_chat_template` alone.

Nothing here uses the product's code, except the type of its result.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from tests.data.gallery.conversations import Chat, Message
from tests.data.gallery.families import End, Family

OPENED = "<think>\n"  # at the end of a generation prompt


class Turn(NamedTuple):
    """A learned turn, as it must be: the tokens before it, its text, and its end.

    whole: the tokens from the first one to the end of the turn, where the context is their
        beginning; None where the template writes the context differently once the turn follows
    """

    context: list[int]
    text: str
    end: End
    whole: list[int] | None


def _closed(message: Message, text: str) -> str:
    """A turn behind a prompt that opens a think block, which the template does not close."""
    return (message.get("reasoning_content") or "").strip() + "\n</think>\n\n" + text.lstrip()


def _masked(value: Any, marks: Sequence[tuple[str, str]]) -> Any:
    """Messages of the same length in which no text has a mark of the template."""
    if isinstance(value, str):
        for mark in sum(marks, ()):
            value = value.replace(mark, "\ue010" * len(mark))
        return value
    if isinstance(value, dict):
        return {key: _masked(item, marks) for key, item in value.items()}
    return [_masked(item, marks) for item in value] if isinstance(value, list) else value


class Oracle:
    """The tokenizer of a family's folder in transformers."""

    def __init__(self, family: Family, folder: Path) -> None:
        self.family = family
        self.folder = folder

    @cached_property
    def tokenizer(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.folder)
        # only these are kept out of messages: the flag `special`, and what ends a turn
        tokenizer.chat_control_tokens = [self.family.answer.text]
        return tokenizer

    def token(self, text: str) -> int:
        found: int = self.tokenizer.convert_tokens_to_ids(text)
        return found

    @cached_property
    def stops(self) -> set[int]:
        """The tokens that end generation in the base model, and what ends a turn."""
        family = self.family
        ends = {family.answer.text, (family.call or family.answer).text}
        return {self.token(text) for text in (*family.stops, family.eos, *ends)}

    def text(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool
    ) -> str:
        if self.family.is_none:  # apply_chat_template leaves out a content that is none
            from transformers.utils.chat_template_utils import render_jinja_template

            [rendered], _ = render_jinja_template(
                [self._messages(messages)],
                tools=tools,
                chat_template=self.tokenizer.get_chat_template(tools=tools),
                add_generation_prompt=prompt,
                **self.tokenizer.special_tokens_map,
            )
            return str(rendered)
        rendered = self.tokenizer.apply_chat_template(
            self._messages(messages), tools=tools, add_generation_prompt=prompt, tokenize=False
        )
        return str(rendered)

    def ids(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool
    ) -> list[int]:
        """The tokens of a rendering; special tokens in the text of messages are plain text."""
        if self.family.is_none:
            encoded = self.tokenizer(self.text(messages, tools, prompt), add_special_tokens=False)
        else:
            encoded = self.tokenizer.apply_chat_template(
                self._messages(messages),
                tools=tools,
                add_generation_prompt=prompt,
                sanitize_control_tokens=True,
            )
        return list(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def again(self, text: str) -> str:
        """A text after a way through the tokenizer, which can drop spaces next to tokens."""
        return self.decode(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def turn(self, chat: Chat, index: int) -> Turn:
        """The turn of the assistant message `index`."""
        message, tools = chat.messages[index], chat.tools
        before, after = chat.messages[:index], chat.messages[: index + 1]
        end = self.family.end(message)
        prompt = self.text(before, tools, True)
        written = self.text(after, tools, False)
        if end.how == "template":
            assert end.text in written, (self.family.name, written)
            written = written[: written.rindex(end.text) + len(end.text)]
        else:
            if end.how == "added":  # the template's own line ends after the content are left out
                said = message["content"]
                rest = written.removeprefix(prompt).rstrip() + said[len(said.rstrip()) :]
                written = prompt + rest
            written += end.text
        context = self.ids(before, tools, True)
        if written.startswith(prompt):
            text = written.removeprefix(prompt)
            if prompt.endswith(OPENED) and "</think>" not in text:
                return Turn(context, _closed(message, text), end, None)
            return Turn(context, text, end, self._whole(context, after, tools, end))
        stem = prompt.removesuffix(OPENED)
        if stem != prompt and written.startswith(stem):
            return Turn(context, _closed(message, written.removeprefix(stem)), end, None)
        masked = self.text(_masked(after, self.family.opening), tools, False)
        asked = max(masked.rfind(header) for header, _ in self.family.opening)
        begins = [
            masked.find(mark, asked) + len(mark)
            for _, mark in self.family.opening
            if mark in masked[asked:]
        ]
        assert any(prompt.endswith(mark) for _, mark in self.family.opening), prompt
        return Turn(context, written[min(begins) :], end, None)

    def _whole(
        self,
        context: list[int],
        after: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        end: End,
    ) -> list[int] | None:
        ids, last = self.ids(after, tools, False), self.token(end.text)
        if ids[: len(context)] != context:
            return None  # a token spans the border
        if end.how != "template":
            return None if end.how == "added" else [*ids, last]
        return ids[: len(ids) - ids[::-1].index(last)]

    def _messages(self, messages: Sequence[Message]) -> list[Message]:
        return [self._message(message) for message in messages]

    def _message(self, message: Message) -> Message:
        """A message as a program would pass it to this template."""
        made = {key: value for key, value in message.items() if key != "weight"}
        if "tool_calls" not in made:
            return made
        if self.family.is_none:
            made["content"] = made["content"] or None
        if self.family.arguments == "object":
            made["tool_calls"] = [
                call
                | {
                    "function": call["function"]
                    | {"arguments": json.loads(call["function"]["arguments"])}
                }
                for call in made["tool_calls"]
            ]
        return made
