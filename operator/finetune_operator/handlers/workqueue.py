"""A work queue with deduplication, delays, priorities, and one worker per key at a time."""

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

COMPLETION, CREATION = 0, 1  # keys that end something come first, because they free GPUs
BACKOFF_FIRST, BACKOFF_LAST = 1.0, 60.0  # seconds


class WorkQueue(Generic[K]):
    """Holds keys. A key that is being processed is handed out again only after that."""

    def __init__(self) -> None:
        self._ready: dict[int, deque[K]] = {COMPLETION: deque(), CREATION: deque()}
        self._waiting: dict[
            K, int
        ] = {}  # key -> urgency; entries of the deques that differ are stale
        self._busy: set[K] = set()
        self._again: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._held: set[K] = set()  # refused keys: changes of children do not shorten the back-off
        self._wakeup = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def add(self, key: K, urgency: int = CREATION) -> None:
        """Add a key for immediate processing, which replaces a delayed entry of the key.

        A refused key waits for the end of its back-off, unless something is to be started.
        """
        if key in self._held and urgency == COMPLETION and key in self._timers:
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._busy:
            self._again[key] = min(urgency, self._again.get(key, urgency))
            return
        if key in self._waiting and self._waiting[key] <= urgency:
            return
        self._waiting[key] = urgency
        self._ready[urgency].append(key)
        self._wakeup.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Add a key after a delay. An earlier delayed entry of the key is kept."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._due, key)

    def _due(self, key: K) -> None:
        """Add a key at the end of its delay with the lower urgency: triggers come first."""
        self._timers.pop(key, None)
        self.add(key, CREATION)

    async def take(self, first: int = COMPLETION) -> K:
        """Wait for a key, preferably with that urgency.

        The caller must return it with `done` or `failed`.
        """
        while True:
            for urgency in (first, CREATION - first):
                ready = self._ready[urgency]
                while ready:
                    key = ready.popleft()
                    if self._waiting.get(key) == urgency:
                        del self._waiting[key]
                        self._busy.add(key)
                        return key
            self._wakeup.clear()
            await self._wakeup.wait()

    def done(self, key: K, requeue_after: float | None = None) -> None:
        self._failures.pop(key, None)
        self._held.discard(key)
        self._release(key)
        if requeue_after == 0:
            self.add(key, COMPLETION)  # a step in two parts
        elif requeue_after is not None and key not in self._waiting:
            self.add_after(key, requeue_after)

    def failures(self, key: K) -> int:
        """The number of times that the key has failed in a row."""
        return self._failures.get(key, 0)

    def refused(self, key: K, at_most: float | None = None) -> float:
        """Like `failed`, for a key that is explained in its status. at_most: seconds to wait."""
        self._held.add(key)
        wait = self.failed(key)
        if at_most is not None and at_most < wait:
            self.add_after(key, at_most)
        return wait if at_most is None else min(wait, at_most)

    def failed(self, key: K) -> float:
        """Schedule a retry with exponential back-off, and return the seconds until then."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        wait: float = min(BACKOFF_FIRST * 2.0 ** min(count, 10), BACKOFF_LAST)
        self._again.pop(
            key, None
        )  # a trigger must not shorten the back-off of a key that always fails
        self._release(key)
        self.add_after(key, wait)
        return wait

    def _release(self, key: K) -> None:
        self._busy.discard(key)
        urgency = self._again.pop(key, None)
        if urgency is not None:
            self.add(key, urgency)
