"""Checks that each line of a file is a JSON object, in the blocks in which the file arrives."""

from __future__ import annotations

import io
import json
from typing import Any, NoReturn

import orjson

BOM = b"\xef\xbb\xbf"


class LineError(Exception):
    """A line that is no JSON object."""

    def __init__(self, line: int, problem: str) -> None:
        """line: from 1. problem: what is wrong with it, after `the line`."""
        super().__init__(f"line {line}: the line {problem}")
        self.line = line
        self.problem = problem


class LineCheck:
    """Checks one file. Empty lines are left to the data check, which counts them."""

    def __init__(self, max_line_bytes: int) -> None:
        self.objects = 0
        self._most = max_line_bytes
        self._number = 0  # of the last complete line
        self._rest = b""  # the beginning of the next one

    def feed(self, data: bytes) -> None:
        """Check the next bytes of the file. Raises LineError."""
        for piece in io.BytesIO(data):  # one line at a time, because a file can have millions
            if len(self._rest) + len(piece) > self._most + 2 and self._is_too_long(piece):
                raise LineError(self._number + 1, f"has more than {self._most:,} bytes")
            if not piece.endswith(b"\n"):
                self._rest += piece
            else:
                line, self._rest = self._rest + piece, b""
                self._check(line)

    def finish(self) -> None:
        """Check the end of the file, which needs no line feed. Raises LineError."""
        if self._rest:
            self._check(self._rest)
            self._rest = b""

    def _is_too_long(self, piece: bytes) -> bool:
        return len(self._rest) + len(piece.rstrip(b"\r\n")) > self._most

    def _check(self, line: bytes) -> None:
        self._number += 1
        if len(line) > self._most and len(line.rstrip(b"\r\n")) > self._most:
            raise LineError(self._number, f"has more than {self._most:,} bytes")
        if line.isspace():
            return
        line = line.removeprefix(BOM)  # also of a file that was joined to another one
        if line and not line.isspace():
            self._check_object(line)
            self.objects += 1

    def _check_object(self, line: bytes) -> None:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = self._decode(line)
        if not isinstance(value, dict):
            raise LineError(self._number, "is valid JSON, but not a JSON object")

    def _decode(self, line: bytes) -> Any:
        """The value of a line that orjson refuses: it also refuses half a surrogate pair."""
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise LineError(self._number, "is not UTF-8 text") from error
        try:
            return _DECODER.decode(text.strip(" \t\r\n"))
        except RecursionError as error:
            raise LineError(self._number, "is nested too deeply") from error
        except ValueError as error:
            raise LineError(self._number, "is not a JSON object") from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Python converts no integer of more than 4,300 digits, and no value is needed.
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=len, parse_float=len)
