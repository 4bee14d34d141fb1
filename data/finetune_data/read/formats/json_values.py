"""JSON documents: one array, one object, or consecutive objects, indented or not."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

from finetune_api.limits import DataLimits
from finetune_api.wire import JsonObject
from finetune_data.read.findings import Finding, shown
from finetune_data.read.formats.json_text import JsonError, decode_at, name_kind, skip_space

Record = tuple[int, JsonObject | Finding]  # the line where it begins

MARK = "\ufeff"  # a byte order mark

# Keys of an example whose value is an array. Any other single array of objects holds the rows.
OWN_ARRAYS = frozenset({"messages", "conversations", "tools", "functions"})


def read_json(blocks: Iterable[bytes | Finding], limits: DataLimits) -> Iterator[Record]:
    """The objects of the document. Invalid JSON is fatal, because nothing shows where to resume."""
    text = _TextBuffer(blocks, limits)
    try:
        if text.peek() == "[":
            yield from _array(text, limits)
        else:
            yield from _objects(text, limits)
        if text.failure is None and text.peek():
            raise JsonError("not-json", "not valid JSON: there is more text after the end", text.at)
    except JsonError as error:
        position = text.at if error.position is None else error.position
        line, column = text.place(position)
        yield line, text.failure or Finding(error.code, error.message, line, column, fatal=True)
        return
    if text.failure is not None:
        yield text.line, text.failure


def _array(text: _TextBuffer, limits: DataLimits) -> Iterator[Record]:
    text.at += 1
    if text.peek() == "]":
        text.at += 1
        return
    while True:
        yield _element(text, limits)
        mark = text.peek()
        if mark not in {",", "]"}:
            message = "not valid JSON: expected ',' or the end of the array"
            raise JsonError("not-json", message, text.at)
        text.at += 1
        if mark == "]":
            return
        text.peek()


def _objects(text: _TextBuffer, limits: DataLimits) -> Iterator[Record]:
    is_first = True
    while text.peek():
        line, value = _element(text, limits)
        if is_first and not text.peek() and (rows := _rows_inside(value)) is not None:
            for row in rows:
                yield line, _as_object(row, line)
            return
        yield line, value
        is_first = False


def _rows_inside(value: JsonObject | Finding) -> list[Any] | None:
    """`{"data": [{...}, ...]}`: the rows of the only member that is an array of objects."""
    if isinstance(value, Finding):
        return None
    arrays = [
        member
        for key, member in value.items()
        if key not in OWN_ARRAYS and isinstance(member, list) and member
        if all(isinstance(item, dict) for item in member)
    ]
    return arrays[0] if len(arrays) == 1 else None


def _element(text: _TextBuffer, limits: DataLimits) -> Record:
    """The next value, which can be as long as a line."""
    while True:
        try:
            value, end = decode_at(text.buffer, text.at, limits.max_nesting)
            # a number can continue in the next block
            if end < len(text.buffer) or not text.refill():
                break
        except JsonError:
            if len(text.buffer) - text.at > limits.max_line_bytes:
                message = f"a value longer than {limits.max_line_bytes:,} bytes, or invalid JSON"
                raise JsonError("line-too-long", message, text.at) from None
            if not text.refill():
                raise
    line = text.line_at(text.at)
    text.at = end
    return line, _as_object(value, line)


def _as_object(value: Any, line: int) -> JsonObject | Finding:
    if isinstance(value, dict):
        return value
    sample = f" {shown(value)}" if isinstance(value, str) else ""
    message = f"{name_kind(value)}{sample}, expected an object with prompt and completion"
    return Finding("not-object", message, line)


class _TextBuffer:
    """The decoded text from `at`, as far as it was needed."""

    def __init__(self, blocks: Iterable[bytes | Finding], limits: DataLimits) -> None:
        self._blocks = iter(blocks)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._has_ended = False
        self.failure: Finding | None = None  # the reason why the blocks ended early
        self.buffer = ""
        self.at = 0
        self.line = 1  # of the buffer's first character
        self._column = 0  # characters before it on its line
        self._limits = limits

    def refill(self) -> bool:
        """Drop the text before `at`, and add a block; False at the end."""
        if self._has_ended:
            return False
        block = next(self._blocks, None)
        if isinstance(block, Finding):
            self.failure = block
        if block is None or isinstance(block, Finding):
            self._has_ended = True
            rest = self._decoder.decode(b"", final=True)
            self.buffer += rest
            return bool(rest)
        self._forget()
        self.buffer += self._decoder.decode(block)
        return True

    def peek(self) -> str:
        """The next character that is not white space or a byte order mark; empty at the end."""
        while True:
            self.at = skip_space(self.buffer, self.at)
            while self.buffer.startswith(MARK, self.at):  # between the documents of joined files
                self.at = skip_space(self.buffer, self.at + len(MARK))
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self.refill() and self.at >= len(self.buffer):
                return ""

    def line_at(self, position: int) -> int:
        return self.line + self.buffer.count("\n", 0, position)

    def place(self, position: int) -> tuple[int, int]:
        """Line and column of a position in the buffer, both from 1."""
        start = self.buffer.rfind("\n", 0, position)
        before = self._column if start < 0 else 0
        return self.line_at(position), before + position - start

    def _forget(self) -> None:
        gone = self.buffer[: self.at]
        last = gone.rfind("\n")
        self._column = len(gone) - last - 1 + (self._column if last < 0 else 0)
        self.line += gone.count("\n")
        self.buffer, self.at = self.buffer[self.at :], 0
