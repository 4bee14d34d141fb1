"""The remembered answers of the API server about what callers may do."""

from __future__ import annotations

import time
from collections.abc import Callable

Question = tuple[str, str, str]  # the fingerprint of the caller, the verb, the plural
MOST_ANSWERS = 4096


class Rights:
    """Answers that are at most `seconds` old, and not more than MOST_ANSWERS of them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._answers: dict[Question, tuple[float, bool]] = {}  # in the order of their times

    def find(self, question: Question) -> bool | None:
        """The remembered answer; None if the API server must be asked."""
        found = self._answers.get(question)
        if found is None or self._clock() - found[0] >= self._seconds:
            return None
        return found[1]

    def remember(self, question: Question, is_allowed: bool) -> None:
        now = self._clock()
        self._answers.pop(question, None)
        self._answers[question] = (now, is_allowed)
        while len(self._answers) > MOST_ANSWERS or self._is_first_old(now):
            del self._answers[next(iter(self._answers))]

    def _is_first_old(self, now: float) -> bool:
        first = next(iter(self._answers.values()))
        return now - first[0] >= self._seconds > 0

    def __len__(self) -> int:
        return len(self._answers)
