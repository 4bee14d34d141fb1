"""Progress of transfers and of passes over files."""

from collections.abc import Callable
from threading import Lock

# Gets the bytes done and the total (0 if it is not known). It is called from several threads.
ProgressCallback = Callable[[int, int], None]


class ProgressMeter:
    """Adds up the bytes of several threads and reports the sum."""

    def __init__(self, total: int, progress: ProgressCallback | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = Lock()

    def __call__(self, count: int) -> None:
        """Add `count` bytes; negative if a part is fetched again."""
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)


def file_progress(meter: ProgressMeter) -> ProgressCallback:
    """Adds one transfer, which reports its own sum, to the meter of several transfers."""
    before = 0

    def report(done: int, total: int) -> None:
        nonlocal before
        meter(done - before)
        before = done

    return report
