"""Tokens a second over a whole attempt, in a list that never grows beyond a bound."""

from finetune_trainer.reporting.report_data import ThroughputPoint

POINTS = 512


class ThroughputLog:
    """Call `add` after each step; the clock is the caller's. Spans double when the list is full."""

    def __init__(self, seconds: float, tokens: int, points: int = POINTS) -> None:
        """seconds, tokens: at the attempt's begin, as `add` counts them."""
        self._marks = [(0, seconds, tokens)]
        self._points = points
        self._every = 1
        self._count = 0

    def add(self, step: int, seconds: float, tokens: int) -> None:
        """A step has ended, `seconds` on any clock, with `tokens` trained on in all."""
        self._count += 1
        if self._count % self._every:
            return
        self._marks.append((step, seconds, tokens))
        if len(self._marks) > self._points:
            self._marks[1:] = self._marks[2::2]
            self._every *= 2

    def points(self) -> list[ThroughputPoint]:
        """One a span."""
        found = []
        for (_, begin, before), (step, end, after) in zip(
            self._marks, self._marks[1:], strict=False
        ):
            if end > begin:
                speed = round((after - before) / (end - begin), 1)
                found.append(ThroughputPoint(step=step, tokens_per_second=speed))
        return found
