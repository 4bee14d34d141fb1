"""One line of JSONL, `{"prompt": ..., "completion": ...}`, to one row or one finding.

Text stays text: no value is stripped, converted or guessed. Whatever the bytes are, the answer is
a Row or a Finding, never an exception.
"""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, BinaryIO, NamedTuple

from finetune_api.tasks import DataLimits
from finetune_data.findings import Finding, shown
from finetune_data.lines import Line, read_lines

KEYS = ("prompt", "completion")


class Row(NamedTuple):
    """One example, and where it stands."""

    line: int
    prompt: str
    completion: str
    extra: tuple[str, ...] = ()  # keys that nobody reads


class _Object(dict[str, Any]):
    """A JSON object that knows its repeated keys."""

    repeated: tuple[str, ...] = ()


def parse_row(line: Line, limits: DataLimits) -> Row | Finding:
    """The row on this line, or the first thing that is wrong with it."""

    def wrong(code: str, message: str, position: int | None = None) -> Finding:
        return Finding(code, message, line.number, None if position is None else position + 1)

    try:
        text = line.data.decode()
    except UnicodeDecodeError as error:
        before = line.data[: error.start].decode()
        byte = line.data[error.start]
        return wrong("not-utf8", f"not valid UTF-8: byte 0x{byte:02x}", len(before))
    if (deep := _too_deep(text, limits.max_nesting)) is not None:
        return wrong("nesting", f"nested deeper than {limits.max_nesting} levels", deep)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return wrong("not-json", f"not valid JSON: {_plain(error.msg)}", error.pos)
    except _ConstantError as error:
        name = str(error)
        return wrong("not-json", f"not valid JSON: {name} is no JSON number", _find(text, name))
    if not isinstance(value, _Object):
        expected = "expected an object with prompt and completion"
        return wrong("not-object", f"{_kind(value)}, {expected}", len(text) - len(text.lstrip()))
    for key in KEYS:
        if key in value.repeated:
            return wrong("repeated-key", f"the key {shown(key)} stands twice", _key(text, key))
        if key not in value:
            return wrong("missing-key", f"missing key {shown(key)}{_instead(key, value)}", 0)
        if not isinstance(value[key], str):
            message = f"{shown(key)} is {_kind(value[key])}, expected a string"
            return wrong("wrong-type", message, _key(text, key))
        if (problem := _text_problem(value[key])) is not None:
            return wrong(problem[0], f"{shown(key)} {problem[1]}", _key(text, key))
    if not value["completion"]:
        return wrong("empty-completion", '"completion" is empty', _key(text, "completion"))
    extra = tuple(key for key in value if key not in KEYS) if len(value) > len(KEYS) else ()
    return Row(line.number, value["prompt"], value["completion"], extra)


def read_rows(stream: io.RawIOBase | BinaryIO, limits: DataLimits) -> Iterator[Row | Finding]:
    """Every row of a file, and a finding for each line that is none, in the file's order."""
    for line in read_lines(stream, limits):
        yield line if isinstance(line, Finding) else parse_row(line, limits)


# --- JSON ---


class _ConstantError(Exception):
    """NaN, Infinity or -Infinity, which JSON does not have and Python's reader takes."""


def _refuse_constant(name: str) -> None:
    raise _ConstantError(name)


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    value = _Object(pairs)
    if len(value) < len(pairs):
        value.repeated = tuple(key for key, n in Counter(k for k, _ in pairs).items() if n > 1)
    return value


# parse_int: Python's int refuses more than 4,300 digits with an error that is not JSON's
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_int=float
)

_KINDS = {
    bool: "a boolean",
    float: "a number",
    str: "a string",
    list: "an array",
    _Object: "an object",
}

_MESSAGES = {
    "Expecting ',' delimiter": "expected ',' or the end of the object or array",
    "Expecting ':' delimiter": "expected ':' after a key",
    "Expecting property name enclosed in double quotes": "expected a key in double quotes",
    "Expecting value": "expected a value",
    "Extra data": "something stands after the object; one object a line",
    "Unterminated string starting at": "a string that starts here has no end",
    "Invalid control character at": "a control character in a string; write \\n, \\t or \\u00..",
    "Invalid \\escape": "an unknown escape after a backslash; write \\\\ for a backslash",
    "Invalid \\uXXXX escape": "expected four hexadecimal digits after \\u",
}


def _plain(message: str) -> str:
    for theirs, ours in _MESSAGES.items():
        if message.startswith(theirs):
            return ours
    return message[:1].lower() + message[1:]


def _kind(value: object) -> str:
    return "null" if value is None else _KINDS.get(type(value), "a value")


def _instead(key: str, value: _Object) -> str:
    alike = next((other for other in value if other.strip().lower() == key), None)
    if alike is not None:
        return f"; did you mean {shown(alike)}?"
    names = ", ".join(shown(name) for name in list(value)[:4])
    return f"; the line has {names}" if names else "; the object is empty"


# --- what and where ---

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def _text_problem(text: str) -> tuple[str, str] | None:
    if "\0" in text:
        return "nul", "holds a NUL character (\\u0000)"
    if not text.isascii() and (found := _SURROGATE.search(text)):
        half = f"\\u{ord(found[0]):04x}"
        return "surrogate", f"holds half of a surrogate pair ({half}), which is no character"
    return None


_MARKS = re.compile(r'\\.|["\[\]{}]|-?Infinity|NaN', re.DOTALL)


def _outside_strings(text: str) -> Iterator[re.Match[str]]:
    inside = False
    for mark in _MARKS.finditer(text):
        if mark[0] == '"':
            inside = not inside
        elif not inside:
            yield mark


def _too_deep(text: str, limit: int) -> int | None:
    """Where the nesting exceeds the limit. Python's reader would end in a RecursionError."""
    if text.count("[") + text.count("{") <= limit:
        return None
    depth = 0
    for mark in _outside_strings(text):
        if mark[0] in "[{":
            depth += 1
            if depth > limit:
                return mark.start()
        elif mark[0] in "]}":
            depth -= 1
    return None


def _find(text: str, constant: str) -> int | None:
    return next((m.start() for m in _outside_strings(text) if m[0] == constant), None)


_SPACE = re.compile(r"[ \t\r\n]*")


def _key(text: str, wanted: str) -> int:
    """Where the value of a key of the top-level object begins, the last one of that name.

    The text is known to be a JSON object.
    """
    found = 0
    position = _skip(text, text.index("{") + 1)
    while text[position] == '"':
        key, position = scanstring(text, position + 1, True)
        start = _skip(text, _skip(text, position) + 1)
        found = start if key == wanted else found
        _, position = _DECODER.raw_decode(text, start)
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)
    return found


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
