"""Decodes text token by token: only complete characters, and cut before a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

BROKEN = "\N{REPLACEMENT CHARACTER}"  # the decoded bytes end in an incomplete character
CONTEXT = 8  # prompt tokens decoded with the text: some tokenizers drop a leading space


class TextStream:
    """Appends the text of tokens to `text`; decodes only the newest tokens each time."""

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-CONTEXT:])
        self._start, self._read = (
            0,
            len(self._tokens),
        )  # start of the window; end of the tokens in `text`
        self.text = ""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        new = self._new_text()
        if new and not new.endswith(BROKEN):
            self._append(new)

    def end(self) -> None:
        """Append the rest, although it may end in an incomplete character."""
        self._append(self._new_text())

    def _new_text(self) -> str:
        known = self._decode(self._tokens[self._start : self._read])
        return self._decode(self._tokens[self._start :])[len(known) :]

    def _append(self, new: str) -> None:
        self.text += new
        self._start, self._read = self._read, len(self._tokens)


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """The start of the stop sequence that ends first; None if there is none."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def final_length(text: str, stops: Sequence[str]) -> int:
    """The number of characters that cannot become part of a stop sequence."""
    longest = max(map(len, stops), default=0)
    for start in range(max(0, len(text) - longest + 1), len(text)):
        if any(stop.startswith(text[start:]) for stop in stops):
            return start
    return len(text)
