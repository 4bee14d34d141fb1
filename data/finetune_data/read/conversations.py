"""Parses chats, in OpenAI's `messages` or ShareGPT's `conversations`, into one checked form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from finetune_data.read.chat_fields import ChatError, take_list, take_text, unread_keys
from finetune_data.read.examples import REASONING, Conversation, Message, is_learned
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import name_kind
from finetune_data.read.messages import MESSAGE_KEYS, ROLES, read_message, read_role
from finetune_data.read.problems import SURROGATE, RecordProblem
from finetune_data.read.tool_calls import read_tools, read_written_calls
from finetune_data.read.values import is_blank

CALL = "a tool call"
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
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": CALL,
    "tool_call": CALL,
}
SHAREGPT_KEYS = (MESSAGE_KEYS - {"role", "content"}) | {"from", "value"}
EXTRA_NAMES = 50  # names that are remembered


class ChatColumns(NamedTuple):
    """The names of the columns that are read."""

    messages: str
    tools: str = "tools"
    functions: str = "functions"
    system: str = "system"


def parse_conversation(
    line: int, record: Mapping[str, Any], columns: ChatColumns, *, is_sharegpt: bool = False
) -> Conversation | RecordProblem:
    """Parse a record with `messages` or `conversations`, and optionally the other columns.

    Each message has the keys of OpenAI or of ShareGPT. Consecutive messages of ShareGPT's role
    `function_call` are the calls of one assistant message. is_sharegpt: for messages with neither.
    """
    column = columns.messages
    unread: list[str] = []
    messages: list[Message] = []
    is_call = False
    try:
        for index, item in enumerate(_items(record.get(column), column)):
            if (plain := plain_message(item)) is not None:
                messages.append(plain)
                is_call = False
                continue
            place = f"{column}[{index}]"
            if not isinstance(item, dict):
                raise ChatError("wrong-type", f"{place} is {name_kind(item)}, expected an object")
            if item.get("role") is not None or not (is_sharegpt or item.get("from") is not None):
                messages.append(_read_openai(item, place, unread))
                is_call = False
                continue
            was_call, (message, is_call) = is_call, _read_sharegpt(item, place, unread)
            last = messages[-1] if messages else {}
            if is_call and was_call and _agree(last, message):
                last["tool_calls"] += message["tool_calls"]
            else:
                messages.append(message)
        return _conversation(line, record, messages, columns, unread)
    except ChatError as error:
        return RecordProblem(error.code, error.message, column)


def _items(value: Any, column: str) -> list[Any]:
    """The messages, also from an object of lists, as older versions of `datasets` store them."""
    if isinstance(value, dict) and all(isinstance(one, list) for one in value.values()):
        lengths = {len(one) for one in value.values()}
        if len(lengths) == 1:
            value = [
                dict(zip(value, one, strict=True)) for one in zip(*value.values(), strict=True)
            ]
    return take_list(value, column)


def plain_message(item: object) -> Message | None:
    """A message that is beyond doubt, which most are: only a role and a text."""
    message = clear_message(item)
    content = message["content"] if message is not None else ""
    if "\0" in content or not (content.isascii() or SURROGATE.search(content) is None):
        return None
    return message


def clear_message(item: object) -> Message | None:
    """A plain message whose text has neither NUL nor surrogates, which the caller knows."""
    if type(item) is not dict or len(item) != 2:
        return None
    role, content = item.get("role"), item.get("content")
    if type(role) is not str or role not in ROLES or type(content) is not str or not content:
        return None
    return {"role": role, "content": content}


def _read_openai(item: dict[str, Any], place: str, unread: list[str]) -> Message:
    role = read_role(item.get("role"), f"{place}.role")
    unread += unread_keys(item, MESSAGE_KEYS, place)
    return read_message(item, role, place, unread)


def _read_sharegpt(item: dict[str, Any], place: str, unread: list[str]) -> tuple[Message, bool]:
    """The message, and whether it is a call in a message of its own."""
    written = item.get("from")
    role = SHAREGPT_ROLES.get(written.strip().lower()) if isinstance(written, str) else None
    if role is None:
        known = ", ".join(sorted(SHAREGPT_ROLES))
        found = shown(written) if isinstance(written, str) else name_kind(written)
        raise ChatError("role", f"{place}.from is {found}, expected one of {known}")
    unread += unread_keys(item, SHAREGPT_KEYS, place)
    if role != CALL:
        return read_message(item, role, place, unread, key="value"), False
    calls = read_written_calls(item.get("value"), f"{place}.value")
    rest = {key: it for key, it in item.items() if key not in {"tool_calls", "value"}}
    message = read_message({**rest, "tool_calls": calls}, "assistant", place, unread, key="value")
    return message, True


def _agree(call: Message, following: Message) -> bool:
    """Whether two calls can be in one message."""
    same_weight = call.get("weight", 1) == following.get("weight", 1)
    return same_weight and not following.get(REASONING)


def _conversation(
    line: int,
    record: Mapping[str, Any],
    messages: list[Message],
    columns: ChatColumns,
    unread: list[str],
) -> Conversation:
    if not messages:
        raise ChatError("no-messages", f"{shown(columns.messages)} is empty")
    if not any(map(is_learned, messages)):
        has_any = any(message["role"] == "assistant" for message in messages)
        what = "every assistant message has weight 0" if has_any else "no assistant message"
        raise ChatError("nothing-to-learn", f"{what}, so there is nothing to learn")
    messages = [*_system(record.get(columns.system), messages), *messages]
    tools = read_tools(record.get(columns.tools), columns.tools)
    read = {columns.messages, columns.tools, columns.system}
    if tools is None:
        tools = read_tools(record.get(columns.functions), columns.functions)
        read.add(columns.functions)
    extra = (key for key, value in record.items() if key not in read and not is_blank(value))
    return Conversation(
        line, messages, tools, tuple(dict.fromkeys([*extra, *unread]))[:EXTRA_NAMES]
    )


def _system(value: object, messages: list[Message]) -> list[Message]:
    """The system message of a column of its own, unless the chat begins with the same one."""
    if is_blank(value):
        return []
    text = take_text(value, "system")
    first = messages[0]
    if first["role"] not in {"system", "developer"}:
        return [{"role": "system", "content": text}]
    if first["content"] != text:
        raise ChatError("role", "the chat has two different system messages, one in system")
    return []
