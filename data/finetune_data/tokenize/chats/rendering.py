"""Renders conversations with a chat template, in the sandbox of transformers, as servers do.

Control tokens in the text of messages are replaced before rendering (`Quoting`), so that only the
template can write them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from finetune_api.names import Reason
from finetune_data import failures
from finetune_data.confined.sections import GIB, Section, Subject
from finetune_data.errors import BaseModelError
from finetune_data.read.examples import Conversation, Message
from finetune_data.tokenize.chats.source import TemplateSource

if TYPE_CHECKING:
    from jinja2 import Template

RENDERED_CHARACTERS = 20_000_000  # a template that writes more is broken or malicious
RENDER_SECONDS, RENDER_BYTES = 5.0, GIB // 2  # of one conversation
SLOW_SECONDS = 12.0  # of all conversations together, beyond one second for this many characters:
CHARACTERS_A_SECOND = 50_000  # usual templates write millions

MARK = "\ue002"  # begins what replaces a control token in the text of a message
QUOTE = MARK + "{}\ue003"
_QUOTED = re.compile("\ue002([0-9]{1,4})\ue003")


class RenderError(Exception):
    """A template that refuses a conversation or writes too much: the cause is a sentence."""


class Form(NamedTuple):
    """How messages are written for a template. Templates differ in what they accept.

    arguments: those of a call as an object, or as the JSON text of OpenAI's format
    empty: the content of a message that only calls tools; the key is missing for "absent"
    content: a text, or a list of parts, as models of images expect it
    """

    arguments: Literal["object", "text"] = "object"
    empty: Literal["", "null", "absent"] = ""
    content: Literal["text", "parts"] = "text"


PLAIN_FORMS = (Form(), Form(content="parts"))
CALL_FORMS = (
    Form(),
    Form("object", "null"),
    Form("text", ""),
    Form("text", "null"),
    Form("object", "absent"),
    Form(content="parts"),
)


class Quoting:
    """Replaces control tokens in the values of a conversation, and finds them in rendered text."""

    def __init__(self, tokens: Sequence[str]) -> None:
        # the mark itself is replaced as well, so that no text of a message is mistaken for it
        self._tokens = sorted(filter(None, {*tokens, MARK}), key=lambda it: (-len(it), it))
        self._pattern = re.compile("|".join(map(re.escape, self._tokens)))
        self._initials = {token[0] for token in self._tokens}

    def replaces(self, token: str) -> bool:
        """Whether no text has this control token afterward."""
        return token in self._tokens

    def changes(self, text: str) -> bool:
        """Whether a text has control tokens."""
        # a search for a character is faster than one for several texts
        for character in self._initials:
            if character in text:
                return self._pattern.search(text) is not None
        return False

    def quote(self, value: Any) -> Any:
        """The same value, without control tokens in its texts."""
        if isinstance(value, str):
            return self._pattern.sub(lambda m: QUOTE.format(self._tokens.index(m[0])), value)
        if isinstance(value, list):
            return [self.quote(item) for item in value]
        if isinstance(value, dict):
            return {key: self.quote(item) for key, item in value.items()}
        return value

    def split(self, text: str) -> Iterator[tuple[str, bool]]:
        """The text in parts; True for a control token of a message, which is plain text."""
        if MARK not in text:
            yield text, False
            return
        parts = _QUOTED.split(text)  # text, number, text, number, ..., text
        numbers = [int(part) for part in parts[1::2]]
        if any(number >= len(self._tokens) for number in numbers):  # of the template
            yield text, False
            return
        yield parts[0], False
        for number, after in zip(numbers, parts[2::2], strict=True):
            yield self._tokens[number], True
            yield after, False

    def plain(self, text: str) -> str:
        """The text with its control tokens."""
        return "".join(part for part, _ in self.split(text))


class Renderer:
    """One base model's template.

    names: `bos_token` and the others that a template can use. model: its name, for messages.
    """

    def __init__(self, source: TemplateSource, names: Mapping[str, str], model: str = "") -> None:
        self.source = source
        self.names = dict(names)
        self.model = model
        what = f"the chat template of base model {model!r}"
        subject = Subject(
            what, failures.REPAIR_TEMPLATE, str(Reason.BASE_MODEL_INVALID), param="model"
        )
        self.section = Section(subject, RENDER_SECONDS, RENDER_BYTES)
        self._seconds = 0.0  # that renderings have taken beyond their length

    def render(
        self, chat: Conversation, form: Form, until: int | None = None, *, is_prompt: bool = False
    ) -> str:
        """The messages before `until` as text, with the generation prompt if `is_prompt`.

        Raises RenderError; BaseModelError for a template that is always slow.
        """
        start, length = time.thread_time(), 0
        try:
            with self.section.at(chat.line):
                template = compiled(self.source_for(chat))
                text = template.render(self.variables(chat, form, until, is_prompt=is_prompt))
            if len(text) > RENDERED_CHARACTERS:
                raise RenderError("the rendered conversation is too long")
            length = len(text)
        except RenderError:
            raise
        except Exception as error:  # a template can raise any type
            raise RenderError(error) from error
        finally:
            self._spend(time.thread_time() - start, length)
        if form.content == "parts" and "'type': 'text'" in text:  # printed as a list
            raise RenderError("it does not accept parts of a text")
        return str(text)

    def _spend(self, seconds: float, length: int) -> None:
        """Count the time of one rendering. Raises BaseModelError if all take too long."""
        self._seconds = max(0.0, self._seconds + seconds - length / CHARACTERS_A_SECOND)
        if self._seconds > SLOW_SECONDS:
            raise BaseModelError(failures.slow_template(self.model, f"{self._seconds:,.0f}"))

    def source_for(self, chat: Conversation) -> str:
        """The template of a conversation."""
        return (chat.tools and self.source.tools) or self.source.default

    def variables(
        self, chat: Conversation, form: Form, until: int | None, *, is_prompt: bool
    ) -> dict[str, Any]:
        """What `apply_chat_template` gives to a template."""
        return {
            "messages": [in_form(message, form) for message in chat.messages[:until]],
            "tools": chat.tools,
            "documents": None,
            "add_generation_prompt": is_prompt,
            **self.names,
        }

    def try_render(
        self, chat: Conversation, form: Form, until: int | None = None, *, is_prompt: bool = False
    ) -> str | None:
        """The same; None if the template refuses the messages."""
        try:
            return self.render(chat, form, until, is_prompt=is_prompt)
        except RenderError:
            return None


def compiled(source: str) -> Template:
    """A template, which transformers compiles and keeps."""
    # the part of `apply_chat_template` behind its copies of the messages, which are plain JSON
    # here: they take as long as the template
    from transformers.utils.chat_template_utils import _compile_jinja_template

    template: Template = _compile_jinja_template(source)
    return template


def in_form(message: Message, form: Form) -> Message:
    """A message as a template gets it, without its weight."""
    value = {key: item for key, item in message.items() if key != "weight"}
    if "reasoning_content" in value:  # gpt-oss calls it thinking, and some servers reasoning
        value |= {"thinking": value["reasoning_content"], "reasoning": value["reasoning_content"]}
    calls = value.get("tool_calls")
    if calls:
        if form.arguments == "object":
            value["tool_calls"] = [_with_object(call) for call in calls]
        if not value["content"] and form.empty:
            value["content"] = None
            if form.empty == "absent":
                del value["content"]
    if form.content == "parts" and value.get("content") is not None:
        value["content"] = [{"type": "text", "text": value["content"]}]
    return value


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.loads(function["arguments"])
    return {**call, "function": {"name": function["name"], "arguments": arguments}}
