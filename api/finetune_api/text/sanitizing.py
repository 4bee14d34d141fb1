"""Foreign text without anything that a terminal or a log obeys, or that a reader cannot see. Pure.

Names, messages, logs, and files come from other people. Control characters change the screen or
start a line that the program did not write, bidirectional overrides reorder it, and invisible
characters hide text. Each becomes visible as an escape, such as `\\x1b` or `\\u202e`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

MOST_MARKS = 8  # combining marks on one character; more of them cover the lines above and below

# Characters without a shape that Unicode counts among letters and marks, and spaces of all widths
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SPACES = frozenset("\xa0\u1680\u202f\u205f\u3000") | {chr(code) for code in range(0x2000, 0x200B)}
_SUSPECT = re.compile("[^ -~]")
_NOT_LINES = re.compile("[^ -~\n\t]")
_EMOJI = "[\u2190-\u2bff\U0001f000-\U0001faff]"
_JOINED = "[\u0600-\u0dff\u1000-\u109f\u1780-\u17ff]"  # scripts whose letters change next to others
# Where an invisible character is a part of an emoji or the spelling of a word
_MEANT = re.compile(
    f"(?<={_EMOJI})[\ufe0e\ufe0f]|(?<=[0-9#*©®])\ufe0f(?=\u20e3)|(?<=[©®])\ufe0f"
    f"|(?<={_EMOJI})\u200d(?={_EMOJI})|(?<=\ufe0f)\u200d(?={_EMOJI})"
    f"|(?<={_JOINED})[\u200c\u200d](?={_JOINED})"
)


def sanitize(text: str, *, keeps_lines: bool = False) -> str:
    """The text on one line, with every deceptive character escaped.

    keeps_lines: line breaks and tabs stay, for texts that have lines, such as logs.
    """
    if text.isascii() and text.isprintable():
        return text
    if keeps_lines:
        return _NOT_LINES.sub(_safe, text.replace("\r\n", "\n"))
    return _SUSPECT.sub(_safe, text)


def sanitize_serialized(text: str) -> str:
    """JSON or double-quoted YAML with every deceptive character escaped: it parses to the same.

    text: as a library writes it, with its own escapes for quotation marks and line breaks.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return re.sub(r"[^\n -~]", lambda found: _serialized(found[0]), text)


@lru_cache(maxsize=4096)
def is_deceptive(character: str) -> bool:
    """Whether a terminal obeys a character, or no one sees it. Spaces of any width are fine."""
    if character in _SPACES:
        return False
    return not character.isprintable() or _INVISIBLE.match(character) is not None


def _safe(found: re.Match[str]) -> str:
    character = found[0]
    if is_deceptive(character):
        is_meant = _MEANT.match(found.string, found.start()) is not None
        return character if is_meant else ascii(character)[1:-1]
    if _is_mark(character) and _is_stacked(found.string, found.start()):
        return ascii(character)[1:-1]
    return character


def _serialized(character: str) -> str:
    if not is_deceptive(character):
        return character
    code = ord(character)
    if code > 0xFFFF:  # the two halves that JSON has for it
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


@lru_cache(maxsize=4096)
def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in {"Mn", "Me"}


def _is_stacked(text: str, at: int) -> bool:
    """Whether enough marks are in front of this one."""
    return at >= MOST_MARKS and all(map(_is_mark, text[at - MOST_MARKS : at]))
