"""One message of a chat: role, content, reasoning, tool calls, and weight, in one checked form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_data.read.chat_fields import ChatError, take_list, take_string, take_text, unread_keys
from finetune_data.read.examples import REASONING, Message
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import name_kind
from finetune_data.read.tool_calls import read_calls, read_function
from finetune_data.read.values import is_blank, plain_text

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
REASONING_KEYS = (REASONING, "thinking", "reasoning")
MESSAGE_KEYS = frozenset(
    {"role", "content", "tool_calls", "function_call", "name", "tool_call_id", "weight"}
) | frozenset(REASONING_KEYS)
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
REASONING_PARTS = frozenset({"thinking", "reasoning", "reasoning_text", "summary_text"})
WEIGHTS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}
UNREADABLE = {"refusal": "a refusal", "audio": "audio"}  # keys of OpenAI that hold an answer


class _Content(NamedTuple):
    """The text of a message, and the reasoning among its parts."""

    text: str | None
    reasoning: str = ""


def read_message(
    item: Mapping[str, Any], role: str, place: str, unread: list[str], *, key: str = "content"
) -> Message:
    """Read a message whose role is known.

    place: such as `messages[1]`; key: of the content; unread: gets the names of keys with a value
    that is not read. Raises ChatError.
    """
    calls = _calls(item, place, unread)
    if calls and role != "assistant":
        raise ChatError("tool-calls", f"{place} has tool_calls, but its role is not assistant")
    content = _content(item.get(key), f"{place}.{key}", unread)
    reasoning = _reasoning(item, content.reasoning, role, place, unread)
    if content.text is None and not calls:
        raise _no_content(item, place, key, bool(reasoning))
    message: Message = {"role": role, "content": content.text or ""}
    if role == "assistant" and not message["content"] and not calls:
        if reasoning:
            raise _no_content(item, place, key, has_reasoning=True)
        problem = f"{place}.{key} is empty, so there is nothing to learn"
        raise ChatError("empty-completion", problem)
    if reasoning:
        message[REASONING] = reasoning
    if calls:
        message["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if item.get(name) is not None:
            message[name] = take_text(item[name], f"{place}.{name}")
    weight = _weight(item.get("weight"), role, place)
    if weight is not None:
        message["weight"] = weight
    return message


def read_role(value: object, place: str) -> str:
    """A role of OpenAI's format."""
    if isinstance(value, str) and value in ROLES:
        return value
    known = ", ".join(sorted(ROLES))
    found = shown(value) if isinstance(value, str) else name_kind(value)
    raise ChatError("role", f"{place} is {found}, expected one of {known}")


def _no_content(
    item: Mapping[str, Any], place: str, key: str, has_reasoning: bool = False
) -> ChatError:
    if has_reasoning:
        message = f"{place} has reasoning, but no {key} and no tool call: there is no answer"
        return ChatError("empty-completion", message)
    other = next((name for name in UNREADABLE if not is_blank(item.get(name))), None)
    if other is None:
        return ChatError("missing-key", f"{place} has no {key}")
    message = f"{place} has {UNREADABLE[other]}, but no {key}; only the text in {key} is learned"
    return ChatError("missing-key", message)


def _weight(value: object, role: str, place: str) -> int | None:
    if value is None:
        return None
    text = plain_text(value)
    weight = WEIGHTS.get(text.strip() if text else "")
    if role != "assistant":
        if weight == 0:  # the model does not learn it anyway
            return None
        raise ChatError("weight", f"{place}.weight: only assistant messages have a weight")
    if weight is None:
        found = shown(text) if text is not None else name_kind(value)
        raise ChatError("weight", f"{place}.weight is {found}, expected 0 or 1")
    return weight


def _content(value: object, place: str, unread: list[str]) -> _Content:
    """A text, or a list of parts that are text or reasoning."""
    if value is None:
        return _Content(None)
    if not isinstance(value, list):
        return _Content(take_text(value, place))
    texts: list[str] = []
    reasoning: list[str] = []
    for index, part in enumerate(take_list(value, place)):
        kind, text = _part(part, f"{place}[{index}]", unread)
        (texts if kind in TEXT_PARTS else reasoning).append(text)
    return _Content("".join(texts) if texts or not reasoning else None, "".join(reasoning))


def _part(part: object, place: str, unread: list[str]) -> tuple[str, str]:
    """The type and the text of a part."""
    kind = part.get("type") if isinstance(part, dict) else None
    known = TEXT_PARTS | REASONING_PARTS
    if not isinstance(part, dict) or not isinstance(kind, str) or kind not in known:
        found = shown(str(kind)) if kind else name_kind(part)
        raise ChatError("content-part", f"{place} is {found}; only text is supported")
    keys = ("text",) if kind in TEXT_PARTS else ("thinking", "reasoning", "text")
    key = next((key for key in keys if part.get(key) is not None), keys[0])
    unread += unread_keys(part, {"type", key}, place)
    value = part.get(key)
    if isinstance(value, list) and kind in REASONING_PARTS:
        return kind, _texts(value, f"{place}.{key}", unread)
    return kind, take_string(value, f"{place}.{key}")


def _texts(parts: list[Any], place: str, unread: list[str]) -> str:
    """The joined texts of parts that hold no further parts."""
    return "".join(
        take_string(part, f"{place}[{index}]")
        if isinstance(part, str)
        else _part(part, f"{place}[{index}]", unread)[1]
        for index, part in enumerate(take_list(parts, place))
    )


def _reasoning(
    item: Mapping[str, Any], among_parts: str, role: str, place: str, unread: list[str]
) -> str:
    """The reasoning of an assistant's message. Several keys can hold it if they agree."""
    found = {"content": among_parts} if among_parts else {}
    for key in REASONING_KEYS:
        value = item.get(key)
        if is_blank(value):
            continue
        where = f"{place}.{key}"
        text = (
            _texts(value, where, unread) if isinstance(value, list) else take_string(value, where)
        )
        if text:
            found[key] = text
    if not found:
        return ""
    first, *others = found
    if role != "assistant":
        raise ChatError("reasoning", f"{place}.{first}: only assistant messages have reasoning")
    different = next((key for key in others if found[key] != found[first]), None)
    if different is not None:
        problem = f"{place} has two different texts of reasoning, {first} and {different}: keep one"
        raise ChatError("reasoning", problem)
    return found[first]


def _calls(item: Mapping[str, Any], place: str, unread: list[str]) -> list[dict[str, Any]]:
    """`tool_calls`, or the older `function_call` as one of them."""
    calls = read_calls(item.get("tool_calls"), f"{place}.tool_calls", unread)
    older = item.get("function_call")
    if is_blank(older):
        return calls
    if calls:
        raise ChatError("tool-calls", f"{place} has both tool_calls and function_call: keep one")
    return [
        {"type": "function", "function": read_function(older, f"{place}.function_call", unread)}
    ]
