"""The digest of a file, and the first line with an error, while its bytes pass."""

from __future__ import annotations

import hashlib
from typing import Literal

from finetune_api.limits import DataLimits
from finetune_gateway.files.file_names import has_lines
from finetune_gateway.files.json_lines import LineCheck, LineError
from finetune_web.problems import Problem, invalid

Digest = Literal["sha256", "md5"]
EXAMPLE = '{"prompt": "...", "completion": "..."}'


class Inspection:
    """One pass over a file. It takes CPU time, so it belongs into a thread."""

    def __init__(self, name: str, limits: DataLimits, digest: Digest = "sha256") -> None:
        """digest: its algorithm. MD5 is for clients that send one, and proves nothing."""
        self._name = name
        self._digest = hashlib.new(digest, usedforsecurity=False)
        self._lines = LineCheck(limits.max_line_bytes) if has_lines(name) else None

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Raises Problem for a line that is no JSON object."""
        self._digest.update(data)
        if self._lines is not None:
            try:
                self._lines.feed(data)
            except LineError as error:
                raise self._refusal(error) from error

    def finish(self) -> None:
        """The file is complete. Raises Problem."""
        if self._lines is None:
            return
        try:
            self._lines.finish()
        except LineError as error:
            raise self._refusal(error) from error
        if not self._lines.objects:
            raise empty_file(self._name)

    @property
    def digest(self) -> str:
        """In hexadecimal, of all bytes until now."""
        return self._digest.hexdigest()

    def _refusal(self, error: LineError) -> Problem:
        return invalid(
            f"{self._name}, line {error.line}: the line {error.problem}. Write one JSON object per "
            f"line, such as {EXAMPLE}.",
            "file",
            "invalid_jsonl",
        )


def empty_file(name: str) -> Problem:
    return invalid(f"The file {name} is empty. Upload a file with examples.", "file", "empty_file")
