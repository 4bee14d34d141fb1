"""The log of a pod: plain lines, with counts for everything that takes long."""

import time
from collections.abc import Callable

EVERY_SECONDS = 5.0


def log(text: str) -> None:
    """Print one line immediately."""
    print(text, flush=True)


class ProgressLog:
    """A ProgressCallback that logs, at most every few seconds.

    It is safe in several threads: at worst it logs a line too many.
    """

    def __init__(
        self, what: str, unit: str = "bytes", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what = what
        self._unit = unit
        self._clock = clock
        self._next = clock() + EVERY_SECONDS

    def __call__(self, done: int, total: int) -> None:
        """total: 0 if it is not known."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + EVERY_SECONDS
        share = f" of {total:,} {self._unit}, {done / total:.0%}" if total else f" {self._unit}"
        log(f"{self._what}: {done:,}{share}")
