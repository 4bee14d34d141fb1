"""Strict JSON from untrusted files: no NaN, no repeated keys, no deep nesting, with positions."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, shown
from finetune_data.read.formats.lines import Line
from finetune_data.read.problems import CONVERSION


class JsonError(Exception):
    """A problem of a JSON text, and the character where it is."""

    def __init__(self, code: str, message: str, position: int | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.position = position


class _ConstantError(Exception):
    """NaN, Infinity, or -Infinity, which Python's parser accepts but JSON does not have."""


class _RepeatedError(Exception):
    """A key that occurs twice in one object."""


def decode_at(text: str, position: int, max_nesting: int) -> tuple[Any, int]:
    """The value that begins at `position`, and where it ends. Raises JsonError."""
    try:
        value, end = DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise JsonError("not-json", f"not valid JSON: {_plain(error.msg)}", error.pos) from error
    except _ConstantError as error:
        name = str(error)
        message = f"not valid JSON: {name} is not a JSON number"
        raise JsonError("not-json", message, _find(text, name)) from error
    except _RepeatedError as error:
        key = str(error)
        again = _find_again(text, position, key)
        raise JsonError("repeated-key", f"the key {shown(key)} occurs twice", again) from error
    except RecursionError as error:
        raise _too_deep(max_nesting, None) from error
    if (deep := _first_too_deep(text, position, end, max_nesting)) is not None:
        raise _too_deep(max_nesting, deep)
    return value, end


def decode_line(line: Line, max_nesting: int) -> tuple[Any, str] | Finding:
    """The only value on a line, and the text of the line."""
    number, data = line
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"not valid UTF-8: byte 0x{data[error.start]:02x}{CONVERSION}"
        return Finding("not-utf8", message, number, len(before) + 1)
    start = skip_space(text, 0)
    try:
        if (deep := _first_too_deep(text, start, len(text), max_nesting)) is not None:
            raise _too_deep(max_nesting, deep)
        value, end = decode_at(text, start, max_nesting)
        end = skip_space(text, end)
        if end < len(text):
            message = "not valid JSON: more text after the object; write one object per line"
            raise JsonError("not-json", message, end)
    except JsonError as error:
        column = None if error.position is None else error.position + 1
        return Finding(error.code, error.message, number, column)
    return value, text


def name_kind(value: object) -> str:
    """`a string`, `null`, ..."""
    return "null" if value is None else _KINDS.get(type(value), "a value")


def find_key(text: str, wanted: str) -> int:
    """The position of the value of a key of the top-level object, from 0; 0 if there is none.

    The text must be one JSON object.
    """
    position = skip_space(text, text.index("{") + 1)
    while text[position] == '"':
        key, position = scanstring(text, position + 1, True)
        start = skip_space(text, skip_space(text, position) + 1)
        if key == wanted:
            return start
        _, position = DECODER.raw_decode(text, start)
        position = skip_space(text, position)
        if text[position] == ",":
            position = skip_space(text, position + 1)
    return 0


def _find_again(text: str, start: int, wanted: str) -> int | None:
    """The position of the value of a key's second occurrence; None below the top level."""
    try:
        first = find_key(text[start:], wanted)
        _, after = DECODER.raw_decode(text, start + first)
        rest = "{" + text[skip_space(text, after) + 1 :]
        return len(text) - len(rest) + find_key(rest, wanted) if first else None
    except (ValueError, IndexError, _RepeatedError, _ConstantError, RecursionError):
        return None


def skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _refuse_constant(name: str) -> None:
    raise _ConstantError(name)


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedError(key)
            seen.add(key)
    return value


# parse_int: Python's int raises an error that is not JSON's for more than 4,300 digits
DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_constant=_refuse_constant,
    parse_int=lambda digits: int(digits) if len(digits) < 1000 else float(digits),
)

_KINDS = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}

_MESSAGES = {
    "Expecting ',' delimiter": "expected ',' or the end of the object or array",
    "Expecting ':' delimiter": "expected ':' after a key",
    "Expecting property name enclosed in double quotes": "expected a key in double quotes",
    "Expecting value": "expected a value",
    "Illegal trailing comma before end of object": "a comma before the end of the object",
    "Illegal trailing comma before end of array": "a comma before the end of the array",
    "Unterminated string starting at": "the string that starts here has no end",
    "Invalid control character at": "a control character in a string; write \\n, \\t or \\u00..",
    "Invalid \\escape": "an unknown escape after a backslash; write \\\\ for a backslash",
    "Invalid \\uXXXX escape": "expected four hexadecimal digits after \\u",
}

_SPACE = re.compile(r"[ \t\r\n]*")
_MARKS = re.compile(r'\\.|["\[\]{}]|-?Infinity|NaN', re.DOTALL)


def _plain(message: str) -> str:
    for theirs, ours in _MESSAGES.items():
        if message.startswith(theirs):
            return ours
    return message[:1].lower() + message[1:]


def _too_deep(limit: int, position: int | None) -> JsonError:
    return JsonError("nesting", f"nested deeper than {limit} levels", position)


def _first_too_deep(text: str, start: int, end: int, limit: int) -> int | None:
    """The position where the nesting exceeds the limit; None if it does not.

    Counting comes first, because hardly any text gets near the limit.
    """
    if text.count("[", start, end) + text.count("{", start, end) <= limit:
        return None
    depth = 0
    for mark in _outside_strings(text, start, end):
        if mark[0] in "[{":
            depth += 1
            if depth > limit:
                return mark.start()
        elif mark[0] in "]}":
            depth -= 1
    return None


def _outside_strings(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    inside = False
    for mark in _MARKS.finditer(text, start, end):
        if mark[0] == '"':
            inside = not inside
        elif not inside:
            yield mark


def _find(text: str, constant: str) -> int | None:
    marks = _outside_strings(text, 0, len(text))
    return next((mark.start() for mark in marks if mark[0] == constant), None)
