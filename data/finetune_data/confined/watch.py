"""Watches a confined process: its memory, and the time of its sections."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from finetune_data.confined.sections import GIB, Running, Slots

POLL_SECONDS = 0.02
RECENT_SECONDS = 5 * POLL_SECONDS  # since the last look at the memory
IDLE_FACTOR = 20  # of the seconds of a section that uses no CPU time: it waits for storage
CGROUP = Path("/sys/fs/cgroup/memory.max")
SHARE = 0.7  # of the container's memory, which no section exceeds

Limit = Literal["time", "memory"]


class Excess(NamedTuple):
    """A section that exceeded a limit. amount: the limit, in seconds or bytes.

    inner: the section that it was in, which is the cause more exactly.
    """

    section: Running
    inner: Running
    limit: Limit
    amount: float


class Watch:
    """What the parent knows about the process. It reads /proc; elsewhere it watches only time."""

    def __init__(self, pid: int, slots: Slots, clock_ticks: int | None = None) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._slots = slots
        self._ticks = clock_ticks or os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._most = container_memory()
        self._before: dict[int, tuple[float, int]] = {}  # slot: start, memory before it
        self._memory = 0
        self._memory = self._private_bytes()  # a fork has the memory of its parent
        self._checked = 0.0

    def check(self, now: float) -> Excess | None:
        """The section that has exceeded a limit, if any. now: `time.monotonic`."""
        memory = self._private_bytes()
        running = self._slots.running()
        # After a long pause of this process, other sections may have changed the memory since then.
        is_recent = now - self._checked < RECENT_SECONDS
        earlier = self._memory if is_recent else memory
        before = {}
        for slot, section in running.items():
            start, known = self._before.get(slot, (0.0, 0))
            before[slot] = section.start, known if start == section.start else earlier
        self._before, self._memory, self._checked = before, memory, now
        cpu: float | None = None
        # the innermost first: its limits are the smallest, and its sentence the most exact
        for slot, section in sorted(running.items(), key=lambda item: -item[1].start):
            most = min(section.memory, int(self._most * SHARE))
            if memory - before[slot][1] > most:
                return Excess(section, self._inner(running, section), "memory", most)
            seconds = now - section.start
            if seconds > section.seconds:
                cpu = self._cpu_seconds() if cpu is None else cpu
                if cpu - section.start_cpu > section.seconds or (
                    seconds > IDLE_FACTOR * section.seconds
                ):
                    return Excess(section, self._inner(running, section), "time", section.seconds)
        return None

    def last(self) -> Running | None:
        """The section that began last, for a process that ended in it."""
        running = self._slots.running().values()
        return max(running, key=lambda section: section.start, default=None)

    @staticmethod
    def _inner(running: dict[int, Running], section: Running) -> Running:
        later = [other for other in running.values() if other.start >= section.start]
        return max(later, key=lambda other: other.start, default=section)

    def _private_bytes(self) -> int:
        with suppress(OSError, ValueError):
            _, resident, shared, *_ = (self._folder / "statm").read_text().split()
            return (int(resident) - int(shared)) * self._page
        return self._memory

    def _cpu_seconds(self) -> float:
        with suppress(OSError, ValueError):
            fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / self._ticks
        return float("inf")  # unknown: only the clock decides


def container_memory(path: Path = CGROUP) -> int:
    """The limit of this container in bytes, or a terabyte."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 1024 * GIB
