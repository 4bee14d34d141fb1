"""JSONL to examples. This is the hot path of training files, so clear lines take a shortcut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_api.limits import DataLimits
from finetune_data.read.examples import Example, Row
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
        yield _read_exactly(item, limits, converter)
        shape = converter.shape
        is_plain = shape is not None and shape.columns == ("prompt", "completion")


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


def _has_doubtful_escape(data: bytes) -> bool:
    """Whether a line has escapes of ASCII, which can hide a key or a NUL, or of surrogates."""
    return b"\\u00" in data or b"\\ud" in data or b"\\uD" in data


def _not_object(value: Any) -> str:
    return f"{name_kind(value)}, expected an object with prompt and completion"
