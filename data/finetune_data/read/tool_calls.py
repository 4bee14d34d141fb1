"""Tools and their calls in one form: OpenAI's, with the arguments as a JSON text."""

from __future__ import annotations

import json
from typing import Any

from finetune_data.read.chat_fields import (
    ChatError,
    take_json,
    take_list,
    take_object,
    take_string,
    take_text,
    unread_keys,
)
from finetune_data.read.findings import shown
from finetune_data.read.formats.json_text import name_kind
from finetune_data.read.values import canonical_json, is_blank

JsonObjects = list[dict[str, Any]]
CALL_KEYS = frozenset({"type", "id", "function"})
FUNCTION_KEYS = frozenset({"name", "arguments"})


def read_calls(value: object, place: str, unread: list[str]) -> JsonObjects:
    """Tool calls. place: of the list, such as `messages[1].tool_calls`; unread: gets other keys."""
    return [
        _read_call(take_object(call, f"{place}[{index}]"), f"{place}[{index}]", unread)
        for index, call in enumerate([] if is_blank(value) else take_list(value, place))
    ]


def read_written_calls(value: object, place: str) -> JsonObjects:
    """The calls that a message of their own holds as JSON: LLaMA-Factory's `function_call`."""
    found = take_json(value, place, "the JSON of a call") if isinstance(value, str) else value
    calls = found if isinstance(found, list) else [found]
    if not calls or not all(isinstance(call, dict) for call in calls):
        message = f'{place} is no call, expected {{"name": "...", "arguments": {{...}}}}'
        raise ChatError("tool-calls", message)
    return read_calls(calls, place, [])


def read_function(value: object, place: str, unread: list[str]) -> dict[str, Any]:
    """The function of a call. Arguments that are an object become its JSON."""
    if not isinstance(value, dict):
        raise ChatError("tool-calls", f"{place} is {name_kind(value)}, expected an object")
    unread += unread_keys(value, FUNCTION_KEYS, place)
    name = take_string(value.get("name"), f"{place}.name")
    return {"name": name, "arguments": _arguments(value.get("arguments"), f"{place}.arguments")}


def read_tools(value: object, place: str) -> JsonObjects | None:
    """The tools of a conversation, each as `{"type": "function", "function": {...}}`."""
    if is_blank(value):
        return None
    tools = [_tool(tool, f"{place}[{index}]") for index, tool in enumerate(take_list(value, place))]
    return tools or None


def _read_call(call: dict[str, Any], place: str, unread: list[str]) -> dict[str, Any]:
    kind = call.get("type")
    if kind not in (None, "function"):  # the value can be anything
        found = shown(kind) if isinstance(kind, str) else name_kind(kind)
        raise ChatError("tool-calls", f'{place}.type is {found}, expected "function"')
    if call.get("function") is None and "name" in call:  # the function without its envelope
        keys = FUNCTION_KEYS | CALL_KEYS
        unread += unread_keys(call, keys, place)
        function = read_function({key: call.get(key) for key in FUNCTION_KEYS}, place, unread)
    else:
        unread += unread_keys(call, CALL_KEYS, place)
        function = read_function(call.get("function"), f"{place}.function", unread)
    value: dict[str, Any] = {"type": "function", "function": function}
    if call.get("id") is not None:
        value["id"] = take_text(call["id"], f"{place}.id")
    return value


def _arguments(value: object, place: str) -> str:
    if is_blank(value):
        return "{}"
    if isinstance(value, str):
        try:
            decoded = take_json(value, place, "valid JSON")
        except ChatError as error:
            if error.code != "wrong-type":
                raise
            raise ChatError("tool-calls", error.message.replace("a text, but ", "")) from error
        take_string(json.dumps(decoded, ensure_ascii=False), place)  # escapes in its texts
        return value
    if not isinstance(value, dict):
        message = f"{place} is {name_kind(value)}, expected an object or its JSON as a string"
        raise ChatError("tool-calls", message)
    return json.dumps(_checked(value, place), ensure_ascii=False)


def _tool(value: object, place: str) -> dict[str, Any]:
    tool: dict[str, Any] = _checked(take_object(value, place), place)
    if isinstance(tool.get("function"), dict):
        return {"type": "function", "function": tool["function"]} | tool
    if not isinstance(tool.get("name"), str) or tool.get("type", "function") != "function":
        message = f'{place} is no function, expected {{"type": "function", "function": {{...}}}}'
        raise ChatError("tools", message)
    tool.pop("type", None)
    return {"type": "function", "function": tool}


def _checked(value: dict[str, Any], place: str) -> Any:
    """The canonical form of a JSON object whose texts are valid."""
    try:
        found = canonical_json(value)
    except ValueError as error:
        raise ChatError("wrong-type", f"{place} holds {error}") from error
    take_string(json.dumps(found, ensure_ascii=False), place)
    return found
