"""JSONL to examples. This is the hot path of training files, so clear lines take a shortcut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_api.limits import DataLimits
from finetune_data.read.chat_fields import ENTRIES_AT_MOST
from finetune_data.read.conversations import clear_message
from finetune_data.read.examples import Conversation, Example, Row, is_learned
from finetune_data.read.findings import Finding
from finetune_data.read.formats.json_text import decode_line, find_key, name_kind
from finetune_data.read.formats.lines import Line, read_lines
from finetune_data.read.problems import RecordProblem
from finetune_data.read.records import ReadResult, RecordConverter

_PROMPT, _COMPLETION = b'"prompt"', b'"completion"'


def read_json_lines(
    blocks: Iterator[bytes | Finding], limits: DataLimits, converter: RecordConverter
) -> Iterator[ReadResult]:
    """The example of each line. orjson reads lines that are beyond doubt, and `_read_exactly` the
    others.
    """
    from orjson import JSONDecodeError, loads

    is_plain = False  # the shape is prompt/completion, with exactly these names
    is_chat = False  # the shape is `messages`, with exactly this name
    for item in read_lines(blocks, limits):
        if isinstance(item, Finding):
            yield item
            continue
        number, data = item
        is_clear = not _has_doubtful_escape(data)
        if is_plain and is_clear and data.count(_PROMPT) == data.count(_COMPLETION) == 1:
            try:
                value = loads(data)
            except JSONDecodeError:
                value = None
            if type(value) is dict and len(value) == 2:
                prompt, completion = value.get("prompt"), value.get("completion")
                if type(prompt) is str and type(completion) is str and completion:
                    yield tuple.__new__(Row, (number, prompt, completion, ()))  # twice as fast
                    continue
        if is_chat and is_clear:
            try:
                chat = _plain_chat(number, loads(data), data)
            except JSONDecodeError:
                chat = None
            if chat is not None:
                yield chat
                continue
        yield _read_exactly(item, limits, converter)
        shape = converter.shape
        is_plain = shape is not None and shape.columns == ("prompt", "completion")
        is_chat = shape is not None and shape.columns == ("messages",)


def _read_exactly(line: Line, limits: DataLimits, converter: RecordConverter) -> ReadResult:
    number, _ = line
    decoded = decode_line(line, limits.max_nesting)
    if isinstance(decoded, Finding):
        return decoded
    value, text = decoded
    start = len(text) - len(text.lstrip())
    if not isinstance(value, dict):
        found: Example | RecordProblem = RecordProblem("not-object", _not_object(value))
    else:
        found = converter.convert(number, value)
    if not isinstance(found, RecordProblem):
        return found
    position = find_key(text, found.key) if found.key is not None else start
    return Finding(found.code, found.message, number, position + 1)


def _plain_chat(line: int, value: Any, data: bytes) -> Conversation | None:
    """A chat that is beyond doubt: only messages with a role and a text, and no key twice.

    data: a line without doubtful escapes, so that no text has a NUL or a surrogate.
    """
    if type(value) is not dict or len(value) != 1:
        return None
    items = value.get("messages")
    if type(items) is not list or not 0 < len(items) <= ENTRIES_AT_MOST:
        return None
    messages = [message for item in items if (message := clear_message(item)) is not None]
    if len(messages) != len(items) or not _has_keys_once(data, len(items)):
        return None
    return Conversation(line, messages) if any(map(is_learned, messages)) else None


def _has_keys_once(data: bytes, messages: int) -> bool:
    """Whether no key is twice in a line that was read as this number of plain messages.

    Without escapes every quotation mark begins or ends a key or a text.
    """
    if b"\\" not in data:
        return data.count(b'"') == 2 + 8 * messages
    return (
        data.count(b'"messages"') == 1
        and data.count(b'"role"') == data.count(b'"content"') == messages
    )


def _has_doubtful_escape(data: bytes) -> bool:
    """Whether a line has escapes of ASCII, which can hide a key or a NUL, or of surrogates."""
    if b"\\" not in data or b"\\u" not in data:  # a search for one byte is the fastest
        return False
    return b"\\u00" in data or b"\\ud" in data or b"\\uD" in data


def _not_object(value: Any) -> str:
    return f"{name_kind(value)}, expected an object with prompt and completion"
