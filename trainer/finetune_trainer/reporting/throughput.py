"""Tokens per second over a whole attempt, in a list of bounded length."""

from finetune_trainer.reporting.report_data import ThroughputPoint

POINTS = 512


class ThroughputLog:
    """Call `add` after each step. When the list is full, each point covers twice as many steps."""

    def __init__(self, seconds: float, tokens: int, points: int = POINTS) -> None:
        """seconds, tokens: the clock and the token count at the start of the attempt."""
        self._marks = [(0, seconds, tokens)]
        self._points = points
        self._every = 1
        self._count = 0

    def add(self, step: int, seconds: float, tokens: int) -> None:
        """Record a finished step; seconds: of any clock; tokens: trained on in total."""
        self._count += 1
        if self._count % self._every:
            return
        self._marks.append((step, seconds, tokens))
        if len(self._marks) > self._points:
            self._marks[1:] = self._marks[2::2]
            self._every *= 2

    def points(self) -> list[ThroughputPoint]:
        """One point for each span of steps."""
        found = []
        for (_, begin, before), (step, end, after) in zip(
            self._marks, self._marks[1:], strict=False
        ):
            if end > begin:
                speed = round((after - before) / (end - begin), 1)
                found.append(ThroughputPoint(step=step, tokens_per_second=speed))
        return found
