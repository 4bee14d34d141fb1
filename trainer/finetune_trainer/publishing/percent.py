"""Reports how much of a slow step of publishing is done."""

from collections.abc import Callable

STEP = 5  # percent: each is a line in the log


class Percent:
    """Reports "writing the model: 35 %" whenever the number grows."""

    def __init__(self, activity: str, progress: Callable[[str], None]) -> None:
        self._activity = activity
        self._progress = progress
        self._total = 0
        self._done = 0
        self._shown = -1

    def of(self, total: int) -> "Percent":
        """Start with the bytes of the whole step."""
        self._total = total
        self.at(0)
        return self

    def add(self, count: int) -> None:
        """Add bytes that are done."""
        self.at(self._done + count)

    def at(self, done: int) -> None:
        """Set the bytes that are done."""
        self._done = done
        percent = 100 * done // max(1, self._total) // STEP * STEP
        if percent > self._shown:  # a part that is sent again takes bytes back
            self._shown = percent
            self._progress(f"{self._activity}: {percent} %")
