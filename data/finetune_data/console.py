"""Plain lines with counts on whatever takes long, for people who read a pod's log."""

import time
from collections.abc import Callable

EVERY_SECONDS = 5.0


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


class Ticker:
    """Says how far something is, at most every few seconds.

    Safe to call from several threads: the worst that happens is a line too many.
    """

    def __init__(
        self, what: str, unit: str = "bytes", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._unit = unit
        self._clock = clock
        self._next = clock() + EVERY_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """total: 0 where nobody knows it."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        share = f" of {total:,} {self._unit}, {done / total:.0%}" if total else f" {self._unit}"
        say(f"{self._what}: {done:,}{share}")
