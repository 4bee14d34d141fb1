"""JSONL to examples. This is the hot path of training files, so clear lines take a shortcut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_api.limits import DataLimits
from finetune_data.read.chat_fields import ENTRIES_AT_MOST
from finetune_data.read.conversations import plain_message
from finetune_data.read.examples import Conversation, Example, Row, is_learned
from finetune_data.read.findings import Finding
from finetune_data.read.formats.json_text import decode_line, find_key, name_kind
from finetune_data.read.formats.lines import Line, read_lines
from finetune_data.read.problems import RecordProblem
from finetune_data.read.records import ReadResult, RecordConverter


def read_json_lines(
    blocks: Iterator[bytes | Finding], limits: DataLimits, converter: RecordConverter
) -> Iterator[ReadResult]:
    """The example of each line. orjson reads lines that are beyond doubt, and `_read_exactly` the
    others.
    """
    from orjson import JSONDecodeError, loads

    prompt_mark, completion_mark = b'"prompt"', b'"completion"'
    is_plain = False  # the shape is prompt/completion, with exactly these names
    is_chat = False  # the shape is `messages`, with exactly this name
    for item in read_lines(blocks, limits):
        if isinstance(item, Finding):
            yield item
            continue
        number, data = item
        if (
            is_plain
            and data.count(prompt_mark) == 1
            and data.count(completion_mark) == 1
            and (b"\\u" not in data or not _has_doubtful_escape(data))
        ):
            try:
                value = loads(data)
            except JSONDecodeError:
                value = None
            if type(value) is dict and len(value) == 2:
                prompt, completion = value.get("prompt"), value.get("completion")
                if type(prompt) is str and type(completion) is str and completion:
                    yield Row(number, prompt, completion)
                    continue
        if is_chat and (b"\\u" not in data or not _has_doubtful_escape(data)):
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
    decoded = decode_line(line, limits.max_nesting)
    if isinstance(decoded, Finding):
        return decoded
    value, text = decoded
    start = len(text) - len(text.lstrip())
    if not isinstance(value, dict):
        found: Example | RecordProblem = RecordProblem("not-object", _not_object(value))
    else:
        found = converter.convert(line.number, value)
    if not isinstance(found, RecordProblem):
        return found
    position = find_key(text, found.key) if found.key is not None else start
    return Finding(found.code, found.message, line.number, position + 1)


def _plain_chat(line: int, value: Any, data: bytes) -> Conversation | None:
    """A chat that is beyond doubt: only messages with a role and a text, and no key twice.

    Each key is in the line once for each message, so none of them is there again.
    """
    if type(value) is not dict or len(value) != 1 or data.count(b'"messages"') != 1:
        return None
    items = value.get("messages")
    if type(items) is not list or not 0 < len(items) <= ENTRIES_AT_MOST:
        return None
    messages = [plain_message(item) for item in items]
    count = len(messages)
    if None in messages or data.count(b'"role"') != count or data.count(b'"content"') != count:
        return None
    found = [message for message in messages if message is not None]
    return Conversation(line, found) if any(map(is_learned, found)) else None


def _has_doubtful_escape(data: bytes) -> bool:
    """Whether a line has escapes of ASCII, which can hide a key or a NUL, or of surrogates."""
    return b"\\u00" in data or b"\\ud" in data or b"\\uD" in data


def _not_object(value: Any) -> str:
    return f"{name_kind(value)}, expected an object with prompt and completion"
