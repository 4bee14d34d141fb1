"""The space that the files of a namespace may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from finetune_web.problems import Problem, invalid

KEPT_SECONDS = 30.0  # for which the bytes of the store count, plus those of this process


@dataclass(frozen=True)
class Usage:
    """What is stored."""

    size: int = 0  # bytes
    objects: int = 0


class Quota:
    """Admits uploads. Several replicas together can exceed it by what they upload in 30 s."""

    def __init__(
        self,
        most_bytes: int,
        most_objects: int,
        measure: Callable[[], Awaitable[Usage]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """most_bytes: 0 for no limit. measure: lists the store."""
        self._most_bytes = most_bytes
        self._most_objects = most_objects
        self._measure = measure
        self._clock = clock
        self._stored = Usage()
        self._measured_at: float | None = None
        self._arriving = 0  # bytes of unfinished uploads of this process
        self._lock = asyncio.Lock()

    async def admit(self, size: int) -> None:
        """Raise Problem unless there is room for `size` bytes more."""
        async with self._lock:
            if self._measured_at is None or self._clock() - self._measured_at >= KEPT_SECONDS:
                self._stored = await self._measure()
                self._measured_at = self._clock()
        if self._stored.objects >= self._most_objects:
            raise invalid(
                f"There are {self._stored.objects:,} files, which is the limit. Delete files that "
                "you no longer need.",
                code="too_many_files",
            )
        self._check(size)

    def take(self, size: int) -> None:
        """Count bytes that have arrived. Raises Problem if there is no room for them."""
        self._check(size)
        self._arriving += size

    def settle(self, size: int, *, is_stored: bool) -> None:
        """An upload has ended, whose `size` bytes were taken before."""
        self._arriving -= size
        if is_stored:
            self._stored = Usage(self._stored.size + size, self._stored.objects + 1)

    def forget(self) -> None:
        """Files were deleted: measure again when the next upload begins."""
        self._measured_at = None

    def _check(self, size: int) -> None:
        used = self._stored.size + self._arriving
        if self._most_bytes and used + size > self._most_bytes:
            raise self._full(used)

    def _full(self, used: int) -> Problem:
        return invalid(
            f"The files take {used:,} of {self._most_bytes:,} bytes, so there is no room for this "
            "one. Delete files that you no longer need, or ask an administrator for a larger "
            "quota (gateway.files.quotaBytes).",
            code="file_quota_exceeded",
        )
