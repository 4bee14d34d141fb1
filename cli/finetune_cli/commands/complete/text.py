"""Text as it comes, token by token: whole characters only, cut where a stop sequence begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]

BROKEN = "\N{REPLACEMENT CHARACTER}"  # the bytes so far are no whole character
CONTEXT = 8  # tokens of the prompt that are decoded along: some tokenizers drop a first space


class TextStream:
    """Adds what tokens say to `text`; decodes only the newest ones each time."""

    def __init__(self, decode: Decode, prompt: Sequence[int]) -> None:
        self._decode = decode
        self._tokens = list(prompt[-CONTEXT:])
        self._start, self._read = 0, len(self._tokens)  # of the window; up to where it is text
        self.text = ""

    def add(self, token: int) -> None:
        self._tokens.append(token)
        news = self._news()
        if news and not news.endswith(BROKEN):
            self._take(news)

    def end(self) -> None:
        """What is left is no whole character and won't be."""
        self._take(self._news())

    def _news(self) -> str:
        known = self._decode(self._tokens[self._start : self._read])
        return self._decode(self._tokens[self._start :])[len(known) :]

    def _take(self, news: str) -> None:
        self.text += news
        self._start, self._read = self._read, len(self._tokens)


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the stop sequence begins that is complete first; None where none is."""
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    return min(found)[1] if found else None


def certain(text: str, stops: Sequence[str]) -> int:
    """How many characters no stop sequence can take back any more."""
    longest = max(map(len, stops), default=0)
    for start in range(max(0, len(text) - longest + 1), len(text)):
        if any(stop.startswith(text[start:]) for stop in stops):
            return start
    return len(text)
