"""Finds every part of a message again in rendered text: content, reasoning, tool calls, tools.

A template that drops a part teaches the model something else than the row says, so a lost part is
an error of the row. Templates may trim a text, escape it as JSON, or change its whitespace.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from finetune_data.read.examples import Message

REASONING = "reasoning_content"
_BLOCK = re.compile(  # the prompt can have opened it
    r"\s*(?:<think>|<thinking>|<reasoning>|\[THINK\])?(?P<text>.*?)"
    r"(?:</think>|</thinking>|</reasoning>|\[/THINK\])(?P<rest>.*)",
    re.DOTALL,
)


class LostPart(NamedTuple):
    """A part that the template does not write, and how to fix the row."""

    key: str  # within the row, such as `messages[1].content`
    what: str
    remedy: str


def split_reasoning(message: Message) -> tuple[str, str]:
    """Reasoning and content. A block such as `<think>` at the start of the content is reasoning."""
    reasoning, content = message.get(REASONING) or "", message["content"]
    block = None if reasoning else _BLOCK.match(content)
    return (block["text"], block["rest"]) if block else (reasoning, content)


def find_lost_answer(message: Message, index: int, text: str) -> LostPart | None:
    """The first part of a learned message that is not in the text of its turn."""
    place = f"messages[{index}]"
    reasoning, content = split_reasoning(message)
    if not _has(message["content"], text) and not _has(content, text):
        return LostPart(
            f"{place}.content",
            "the text of an assistant message",
            "remove what its template rejects or use another base model",
        )
    if not _has(reasoning, _without(content, text)):
        return LostPart(
            f"{place}.{REASONING}" if message.get(REASONING) else f"{place}.content",
            "the reasoning of an assistant message",
            "remove the reasoning or use a base model whose template writes it",
        )
    return _lost_call(message, place, _without(content, text))


def find_lost_context(
    messages: Sequence[Message], tools: Sequence[dict[str, Any]] | None, text: str
) -> LostPart | None:
    """The first part of the messages before an answer that is not in its prompt.

    Templates drop the reasoning of earlier turns on purpose, so it is not expected.
    """
    for index, tool in enumerate(tools or ()):
        name = _tool_name(tool)
        if name and not _has(name, text):
            return lost_tool(index)
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        _, content = split_reasoning(message)
        if not _has(content, text):
            return LostPart(
                f"{place}.content",
                f"the text of a {message['role']} message",
                f"remove the message, or use a base model whose template supports the role "
                f"{message['role']}",
            )
        lost = _lost_call(message, place, text)
        if lost is not None:
            return lost
    return None


def lost_tool(index: int) -> LostPart:
    """The description of a tool that the template does not write."""
    return LostPart(
        f"tools[{index}]",
        "the tool",
        "remove the tools or use a base model whose template supports tools",
    )


def lost_call(message: Message, place: str, index: int, key: str, what: str) -> LostPart:
    """A part of a tool call that the template does not write. key: within its function."""
    remedy = "use a base model whose template supports tool calls"
    if index:
        remedy = "use a base model whose template supports several tool calls in one message"
    elif message["content"]:
        remedy = f"set {place}.content to null, or {remedy}"
    return LostPart(f"{place}.tool_calls[{index}].function.{key}", what, remedy)


def _lost_call(message: Message, place: str, text: str) -> LostPart | None:
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        if not _has(function["name"], text):
            return lost_call(message, place, index, "name", "the tool call")
        if function["arguments"] not in text:
            for leaf in _leaves(json.loads(function["arguments"])):
                if not any(written in text for written in leaf):
                    what = f"the argument {leaf[0]!r:.60} of the tool call"
                    return lost_call(message, place, index, "arguments", what)
    return None


def _leaves(value: Any) -> Iterator[tuple[str, ...]]:
    """The spellings of each key and value: of JSON, of Python, and as a plain text."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield _spellings(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield _spellings(value)
    else:
        yield json.dumps(value), str(value)


def _spellings(text: str) -> tuple[str, ...]:
    """A text as it is, trimmed, and escaped as JSON."""
    escaped = json.dumps(text, ensure_ascii=False)[1:-1]
    ascii_only = json.dumps(text)[1:-1]
    return text, text.strip(), escaped, escaped.strip(), ascii_only, repr(text)[1:-1]


def _has(part: str, text: str) -> bool:
    if part.strip() in text:
        return True
    return any(it in text for it in _spellings(part)) or " ".join(part.split()) in " ".join(
        text.split()
    )


def _without(content: str, text: str) -> str:
    """The text without the last place that has the content, which can repeat the reasoning."""
    before, _, after = text.rpartition(content.strip()) if content.strip() else (text, "", "")
    return f"{before}\n{after}"


def _tool_name(tool: dict[str, Any]) -> str | None:
    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
