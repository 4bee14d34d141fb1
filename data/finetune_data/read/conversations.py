"""Parses chats, in OpenAI's `messages` or ShareGPT's `conversations`, into one checked form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune_data.read.examples import Conversation, Message, is_learned
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import DECODER, name_kind
from finetune_data.read.problems import SURROGATE, RecordProblem

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function": "tool",
}
MESSAGES_AT_MOST = 10_000


class _ChatError(Exception):
    """A problem of a conversation: a code and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def parse_conversation(
    line: int, record: Mapping[str, Any], column: str = "messages"
) -> Conversation | RecordProblem:
    """Parse a record with `messages`, and optionally `tools` or the older `functions`."""
    try:
        messages = [
            _message(item, f"{column}[{index}]")
            for index, item in enumerate(_list(record.get(column), column))
        ]
        return _conversation(line, record, messages, column)
    except _ChatError as error:
        return RecordProblem(error.code, error.message, column)


def from_sharegpt(
    line: int, record: Mapping[str, Any], column: str = "conversations"
) -> Conversation | RecordProblem:
    """Parse a record with `conversations` of `from` and `value`, and optionally a `system` text."""
    try:
        messages: list[Message] = []
        system = record.get("system")
        if isinstance(system, str) and system:
            messages.append({"role": "system", "content": _text(system, "system")})
        for index, item in enumerate(_list(record.get(column), column)):
            place = f"{column}[{index}]"
            if not isinstance(item, dict):
                raise _ChatError("wrong-type", f"{place} is {name_kind(item)}, expected an object")
            if "role" in item and "content" in item:
                messages.append(_message(item, place))
                continue
            role = SHAREGPT_ROLES.get(str(item.get("from", "")).lower())
            if role is None:
                known = ", ".join(sorted(SHAREGPT_ROLES))
                found = shown(str(item.get("from")))
                raise _ChatError("role", f"{place}.from is {found}, expected one of {known}")
            messages.append({"role": role, "content": _text(item.get("value"), f"{place}.value")})
        return _conversation(line, record, messages, column)
    except _ChatError as error:
        return RecordProblem(error.code, error.message, column)


def _conversation(
    line: int, record: Mapping[str, Any], messages: list[Message], column: str
) -> Conversation:
    if not messages:
        raise _ChatError("no-messages", f"{shown(column)} is empty")
    if not any(map(is_learned, messages)):
        has_any = any(message["role"] == "assistant" for message in messages)
        what = "every assistant message has weight 0" if has_any else "no assistant message"
        raise _ChatError("nothing-to-learn", f"{what}, so there is nothing to learn")
    tools = _tools(record)
    read = {column, "tools", "functions", "system", "parallel_tool_calls"}
    return Conversation(line, messages, tools, tuple(key for key in record if key not in read))


def _message(item: Any, place: str) -> Message:
    if not isinstance(item, dict):
        raise _ChatError("wrong-type", f"{place} is {name_kind(item)}, expected an object")
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(sorted(ROLES))
        found = shown(role) if isinstance(role, str) else name_kind(role)
        raise _ChatError("role", f"{place}.role is {found}, expected one of {known}")
    calls = _calls(item, place)
    if calls and role != "assistant":
        raise _ChatError("tool-calls", f"{place} has tool_calls, but its role is not assistant")
    message: Message = {"role": role, "content": _message_content(item, place, bool(calls))}
    if role == "assistant" and not message["content"] and not calls:
        raise _ChatError(
            "empty-completion", f"{place}.content is empty, so there is nothing to learn"
        )
    if calls:
        message["tool_calls"] = calls
    for key in ("name", "tool_call_id"):
        if item.get(key) is not None:
            message[key] = _text(item[key], f"{place}.{key}")
    if item.get("weight") is not None:
        message["weight"] = _weight(item["weight"], role, place)
    return message


def _weight(value: Any, role: str, place: str) -> int:
    if role != "assistant":
        raise _ChatError("weight", f"{place}.weight: only assistant messages have a weight")
    if isinstance(value, bool) or value not in (0, 1):
        raise _ChatError("weight", f"{place}.weight is {shown(str(value))}, expected 0 or 1")
    return int(value)


def _message_content(item: Message, place: str, has_calls: bool) -> str:
    """The content. Only a message that calls tools can have none."""
    content = item.get("content")
    if content is not None:
        return _content(content, f"{place}.content")
    if has_calls:
        return ""
    if "content" not in item:
        raise _ChatError("missing-key", f"{place} has no content")
    raise _ChatError("wrong-type", f"{place}.content is null, expected a string")


def _content(value: Any, place: str) -> str:
    """A text, or a list of text parts."""
    if isinstance(value, str):
        return _text(value, place)
    if not isinstance(value, list):
        raise _ChatError("wrong-type", f"{place} is {name_kind(value)}, expected a string")
    texts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "input_text", "output_text"):  # the value can be anything
            found = shown(str(kind)) if kind else name_kind(part)
            raise _ChatError("content-part", f"{place}[{index}] is {found}; only text is supported")
        texts.append(_text(part.get("text"), f"{place}[{index}].text"))
    return "".join(texts)


def _calls(item: Message, place: str) -> list[dict[str, Any]]:
    """`tool_calls`, or the older `function_call` as one of them."""
    if item.get("function_call") is not None:
        return [{"type": "function", "function": _function(item["function_call"], place)}]
    found = item.get("tool_calls")
    if found is None:
        return []
    calls = []
    for index, call in enumerate(_list(found, f"{place}.tool_calls")):
        where = f"{place}.tool_calls[{index}]"
        if not isinstance(call, dict):
            raise _ChatError("wrong-type", f"{where} is {name_kind(call)}, expected an object")
        value: dict[str, Any] = {
            "type": "function",
            "function": _function(call.get("function"), where),
        }
        if call.get("id") is not None:
            value["id"] = _text(call["id"], f"{where}.id")
        calls.append(value)
    return calls


def _function(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _ChatError(
            "tool-calls", f"{place}.function is {name_kind(value)}, expected an object"
        )
    name = _text(value.get("name"), f"{place}.function.name")
    arguments = value.get("arguments", "{}")
    if not isinstance(arguments, str):
        message = f"{place}.function.arguments is {name_kind(arguments)}, expected a JSON string"
        raise _ChatError("tool-calls", message)
    _text(arguments, f"{place}.function.arguments")
    try:
        DECODER.decode(arguments or "{}")
    except Exception as error:
        message = f"{place}.function.arguments is not valid JSON"
        raise _ChatError("tool-calls", message) from error
    return {"name": name, "arguments": arguments or "{}"}


def _tools(record: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    if record.get("tools") is not None:
        tools = _list(record["tools"], "tools")
        if not all(isinstance(tool, dict) for tool in tools):
            raise _ChatError("tools", "tools has an entry that is not an object")
    elif record.get("functions") is not None:
        functions = _list(record["functions"], "functions")
        tools = [{"type": "function", "function": function} for function in functions]
    else:
        return None
    _text(json.dumps(tools, ensure_ascii=False), "tools")
    return tools or None


def _list(value: Any, place: str) -> list[Any]:
    """A list, or its JSON in the cell of a table."""
    if isinstance(value, str):
        try:
            value = DECODER.decode(value)
        except Exception as error:
            raise _ChatError("wrong-type", f"{place} is a text, but not a JSON array") from error
    if not isinstance(value, list):
        raise _ChatError("wrong-type", f"{place} is {name_kind(value)}, expected an array")
    if len(value) > MESSAGES_AT_MOST:
        raise _ChatError(
            "too-many", f"{place} has {len(value):,} entries, more than {MESSAGES_AT_MOST:,}"
        )
    return value


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise _ChatError("wrong-type", f"{place} is {name_kind(value)}, expected a string")
    if "\0" in value:
        raise _ChatError("nul", f"{place} holds a NUL character (\\u0000)")
    if not value.isascii() and (found := SURROGATE.search(value)):
        half = f"\\u{ord(found[0]):04x}"
        raise _ChatError("surrogate", f"{place} holds half of a surrogate pair ({half})")
    return value
