"""The work for requests, all of which ends when the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from finetune_serving import metrics
from finetune_web.problems import Problem, unavailable

T = TypeVar("T")


class Activity:
    """The tasks that run for requests."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_ending = False
        self._is_closed = False

    @property
    def is_ending(self) -> bool:
        return self._is_ending

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run the work in a task. Raises Problem when the server ends."""
        if self._is_ending:
            work.close()
            raise restarting()
        task = asyncio.create_task(work)
        self._tasks.add(task)
        metrics.WAITING.inc()
        task.add_done_callback(self._discard)
        return task

    async def result(self, task: asyncio.Task[T]) -> T:
        """The result of a task; cancels it if the caller is cancelled. Raises Problem."""
        try:
            return await task
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if self._is_closed and current is not None and not current.cancelling():
                raise restarting() from None
            raise

    async def drain(self, seconds: float) -> None:
        """Refuse new work, wait for the work that runs, and cancel the rest."""
        self._is_ending = True
        if self._tasks:
            await asyncio.wait({*self._tasks}, timeout=seconds)
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    def _discard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        metrics.WAITING.dec()


def restarting() -> Problem:
    return unavailable("The server restarts. Repeat the request.", 1)
