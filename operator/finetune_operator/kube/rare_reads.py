"""Reads that cost the API server much, such as the Events of one object.

Events are not in its cache: it reads and decodes all Events of the namespace for each list.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

SHARE = 20  # a read that takes 50 ms is followed by one after a second
KEPT = 1000  # answers

Answer = TypeVar("Answer")


class RareReads:
    """Repeats reads only as long as they take a twentieth of the time, and keeps their answers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = 0.0
        self._known: OrderedDict[str, Any] = OrderedDict()

    async def get(self, uid: str, read: Callable[[], Awaitable[Answer]]) -> Answer | None:
        """The answer for an object: a new one, or else the last one; None before the first one.

        read: asks the API server.
        """
        begin = self._clock()
        known: Answer | None = self._known.get(uid)
        if begin < self._next:
            return known
        self._next = float("inf")  # one at a time
        try:
            answer = await read()
        finally:
            end = self._clock()
            self._next = end + SHARE * (end - begin)
        self._known[uid] = answer
        self._known.move_to_end(uid)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)
        return answer
