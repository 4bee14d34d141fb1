"""Renders a conversation with the base model's chat template, and marks the learned pieces.

transformers renders the template in a sandbox, as inference servers do. The model learns the text
of assistant messages with a weight above 0, and the end-of-turn token right after them; the
generation prompt before them is a part of the model's input at inference. Special tokens in the
text of messages are replaced before rendering, and restored afterward as pieces of plain text.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finetune_data.models.base_models import read_json
from finetune_data.read.examples import Conversation, Message
from finetune_data.read.findings import Finding, detail

OPEN, CLOSE = "\ue000\ue001", "\ue001\ue000"  # private use; around learned text
RENDERED_CHARACTERS = 20_000_000  # a template that writes more is broken or malicious
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

QUOTE = "\ue002{}\ue003"  # replaces a special token in the text of a message
_QUOTED = re.compile("\ue002([0-9]{1,4})\ue003")

Span = tuple[int, int]


class Piece(NamedTuple):
    """A run of the rendered text."""

    text: str
    is_learned: bool
    is_quoted: bool = False  # the text of a special token, as plain text


class TemplateSource(NamedTuple):
    """Jinja templates. `tools` is for conversations with tools, if the model has two templates."""

    default: str
    tools: str = ""


class ChatTemplate:
    """The template and the special tokens that it can name.

    ends: the texts of special tokens, one of which ends a turn
    """

    def __init__(
        self, source: TemplateSource, tokens: Mapping[str, str], ends: Sequence[str]
    ) -> None:
        self.source = source
        self._tokens = tokens
        # transformers keeps the positions of generation blocks in the compiled template, and two
        # threads render
        self._lock = threading.Lock()
        self._special = sorted(filter(None, ends), key=len, reverse=True)
        self._ends = re.compile("|".join(map(re.escape, self._special)) or "(?!)")

    def pieces(self, chat: Conversation) -> list[Piece] | Finding:
        """The conversation as text; a Finding if the template refuses it or changes its text."""
        chat = Conversation(chat.line, self._quote(chat.messages), self._quote(chat.tools))
        try:
            text, spans = self._spans(chat)
        except Exception as error:  # a template can raise any type
            message = f"the base model's chat template refuses this conversation: {detail(error)}"
            return Finding("chat-template", message, chat.line)
        if spans is None:
            message = (
                "the base model's chat template changes the text of assistant messages, so that it "
                "cannot be found in the result"
            )
            return Finding("chat-template", message, chat.line)
        if len(text) > RENDERED_CHARACTERS:
            return Finding("chat-template", "the rendered conversation is too long", chat.line)
        pieces = _cut(text, [self._with_end(text, span) for span in spans])
        if not any(piece.is_learned for piece in pieces):
            message = "the base model's chat template writes no text that can be learned"
            return Finding("chat-template", message, chat.line)
        return [part for piece in pieces for part in self._unquote(piece)]

    def _quote(self, value: Any) -> Any:
        """The same value, without special tokens in its texts."""
        if isinstance(value, str):
            return self._ends.sub(lambda m: QUOTE.format(self._special.index(m[0])), value)
        if isinstance(value, list):
            return [self._quote(item) for item in value]
        if isinstance(value, dict):
            return {key: self._quote(item) for key, item in value.items()}
        return value

    def _unquote(self, piece: Piece) -> list[Piece]:
        parts = _QUOTED.split(piece.text)  # text, number, text, number, ..., text
        if len(parts) == 1:
            return [piece]
        numbers = [int(part) for part in parts[1::2]]
        if max(numbers) >= len(self._special):  # the text itself uses these characters
            return [piece]
        found = [Piece(parts[0], piece.is_learned)]
        for number, text in zip(numbers, parts[2::2], strict=True):
            found.append(Piece(self._special[number], piece.is_learned, is_quoted=True))
            found.append(Piece(text, piece.is_learned))
        return [part for part in found if part.text]

    def _source(self, chat: Conversation) -> str:
        return (chat.tools and self.source.tools) or self.source.default

    def _spans(self, chat: Conversation) -> tuple[str, list[Span] | None]:
        learned = [
            index
            for index, message in enumerate(chat.messages)
            if message["role"] == "assistant" and message.get("weight", 1)
        ]
        answers = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
        if _GENERATION.search(self._source(chat)):
            text, found = self._render(chat.messages, chat, marks=True)
            if len(found) == len(answers):
                chosen = [span for i, span in zip(answers, found, strict=True) if i in learned]
                return text, chosen
        text, _ = self._render(chat.messages, chat)
        spans = self._marked_spans(chat, learned, text)
        return text, spans if spans is not None else self._prefix_spans(chat, learned, text)

    def _marked_spans(
        self, chat: Conversation, learned: Sequence[int], text: str
    ) -> list[Span] | None:
        """Render once more, with marks around the learned text; None if a mark gets lost."""
        if any(chat.messages[index].get("tool_calls") for index in learned):
            return None
        messages = [
            {**message, "content": f"{OPEN}{message['content']}{CLOSE}"}
            if index in learned
            else message
            for index, message in enumerate(chat.messages)
        ]
        marked, _ = self._render(messages, chat)
        parts = re.split(f"({OPEN}|{CLOSE})", marked)
        if parts[1::2] != [OPEN, CLOSE] * len(learned) or "".join(parts[::2]) != text:
            return None
        spans, at = [], 0
        for index, part in enumerate(parts[::2]):
            if index % 2:
                spans.append((at, at + len(part)))
            at += len(part)
        return spans

    def _prefix_spans(
        self, chat: Conversation, learned: Sequence[int], text: str
    ) -> list[Span] | None:
        """Compare the text before each answer with the text that includes the answer."""
        spans = []
        for index in learned:
            before, _ = self._render(chat.messages[:index], chat, is_prompt=True)
            after, _ = self._render(chat.messages[: index + 1], chat)
            if not (
                text.startswith(before) and text.startswith(after) and len(before) < len(after)
            ):
                return None
            end = len(after)
            marks = list(self._ends.finditer(text, len(before), end))
            if marks and not text[marks[-1].end() : end].strip():
                end = marks[-1].start()
            spans.append((len(before), end))
        return spans

    def _with_end(self, text: str, span: Span) -> Span:
        """The span with the special token right after it, unless it already ends with one."""
        start, end = span
        inside = list(self._ends.finditer(text, start, end))
        if inside and inside[-1].end() == len(text[:end].rstrip()) and inside[-1].start() > start:
            return start, inside[-1].end()
        follows = self._ends.match(text, end)
        return (start, follows.end()) if follows else span

    def _render(
        self,
        messages: Sequence[Message],
        chat: Conversation,
        *,
        is_prompt: bool = False,
        marks: bool = False,
    ) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        with self._lock:
            rendered, spans = render_jinja_template(
                [[_for_template(message) for message in messages]],
                tools=chat.tools,
                chat_template=self._source(chat),
                return_assistant_tokens_mask=marks,
                add_generation_prompt=is_prompt,
                **self._tokens,
            )
        return rendered[0], [tuple(span) for span in spans[0]] if marks and spans else []


def _for_template(message: Message) -> Message:
    """A message in the form that templates expect: arguments as objects, without a weight."""
    value = {key: item for key, item in message.items() if key != "weight"}
    if "tool_calls" in value:
        value["tool_calls"] = [
            {
                **call,
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.loads(call["function"]["arguments"]),
                },
            }
            for call in value["tool_calls"]
        ]
    return value


def _cut(text: str, spans: Sequence[Span]) -> list[Piece]:
    pieces, at = [], 0
    for start, end in spans:
        pieces += [Piece(text[at:start], False), Piece(text[start:end], True)]
        at = end
    pieces.append(Piece(text[at:], False))
    return [piece for piece in pieces if piece.text]


def find_template(folder: Path, settings: Mapping[str, Any]) -> TemplateSource | None:
    """The model's template, from a file of its own or tokenizer_config.json; None if it has none.

    settings: the content of tokenizer_config.json. Of several named templates, `default` and
    `tool_use` are used. Raises ValueError, which names the file.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return TemplateSource(file.read_text(encoding="utf-8", errors="replace"))
    found = settings.get("chat_template")
    if found is None:
        found = read_json(folder / "chat_template.json").get("chat_template")
    if not isinstance(found, list):
        return TemplateSource(found) if isinstance(found, str) and found else None
    named = {
        item["name"]: item["template"]
        for item in found
        if isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("template"), str)
    }
    default = named.get("default") or next(iter(named.values()), "")
    return TemplateSource(default, named.get("tool_use", "")) if default else None
