"""Common beginnings and endings of texts."""

from __future__ import annotations

from collections.abc import Sequence


def common_suffix(texts: Sequence[str], known: str | None) -> str:
    """The common ending of `known` and all texts; `known` is None before the first texts."""
    if known is None:
        known = texts[0]
    if all(text.endswith(known) for text in texts):
        return known
    ends = [text[-len(known) :][::-1] if known else "" for text in texts]
    return shared_prefix(known[::-1], shared_prefix(min(ends), max(ends)))[::-1]


def shared_prefix(one: str, other: str) -> str:
    """The common beginning of two texts."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:index]
    return min(one, other, key=len)


def from_word_start(text: str) -> str:
    """The text without a part of a word at its start: `tive` of `positive` and `negative`."""
    start = 0
    while start < len(text) and (text[start].isalnum() or text[start] == "_"):
        start += 1
    return text[start:]


def to_word_end(text: str) -> str:
    """The text without a part of a word or a number at its end."""
    end = len(text)
    while end and (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    return text[:end]
