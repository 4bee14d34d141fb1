"""Problems of records: the reason why a record is no example."""

from __future__ import annotations

import re
from typing import NamedTuple

# The encoding of Excel on Windows in Western languages is only an example: it cannot be detected.
CONVERSION = "; save it as UTF-8 or run `finetune prepare-data FILE --encoding cp1252`"
SURROGATE = re.compile(r"[\ud800-\udfff]")


class RecordProblem(NamedTuple):
    """The reason why a record is no example, and the key that it is about."""

    code: str
    message: str
    key: str | None = None


def text_problem(text: str) -> tuple[str, str] | None:
    """The defect of a text, as a code and the rest of a sentence; None for a valid text."""
    if "\0" in text:
        return "nul", "holds a NUL character (\\u0000)"
    if not text.isascii() and (found := SURROGATE.search(text)):
        code = ord(found[0])
        if 0xDC80 <= code <= 0xDCFF:  # a reader keeps a byte that it cannot decode in this form
            return "not-utf8", f"is not valid UTF-8: byte 0x{code - 0xDC00:02x}{CONVERSION}"
        return "surrogate", f"holds half of a surrogate pair (\\u{code:04x}), which is no character"
    return None
