"""Marks of what a confined process works on, in memory that its parent reads.

A section is one piece of work on a hostile file, such as one rendering of a chat template. It costs
about three microseconds. Sections of several threads run at the same time, and a section can be
inside of another one. In a process without a watching parent, they do nothing.
"""

from __future__ import annotations

import json
import mmap
import struct
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, TypeVar

SLOTS = 64  # sections at the same time; further ones are not watched
GIB = 2**30
# start, start in CPU seconds, limit in seconds, limit in bytes, line, bytes of the text
_HEADER = struct.Struct("<dddqqq")
_START = struct.Struct("<d")
_SLOT_BYTES = 4096
_TEXT_BYTES = _SLOT_BYTES - _HEADER.size

Item = TypeVar("Item")


class Subject(NamedTuple):
    """What a section works on, for the sentence about it.

    what: "the chat template of base model 'curie'". remedy: a hint. code: one of names.Reason.
    """

    what: str
    remedy: str
    code: str
    param: str | None = None


class Running(NamedTuple):
    """A section that runs, as its parent sees it. The clock is `time.monotonic`.

    seconds, memory: the limits; memory is what the process may grow by. place: the lines or the
    file, with the preposition.
    """

    start: float
    start_cpu: float
    seconds: float
    memory: int
    subject: Subject
    place: str


class Slots:
    """The shared memory. The child writes, and the parent reads."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, SLOTS * _SLOT_BYTES)
        self.free = [*range(SLOTS)]

    def running(self) -> dict[int, Running]:
        """The sections by their slots."""
        found = {}
        for slot in range(SLOTS):
            offset = slot * _SLOT_BYTES
            start, cpu, seconds, memory, line, length = _HEADER.unpack_from(self.memory, offset)
            if not start:
                continue
            text = self.memory[offset + _HEADER.size : offset + _HEADER.size + length]
            if _START.unpack_from(self.memory, offset)[0] != start:
                continue  # it has ended by now
            try:
                place, *subject = json.loads(text)
            except ValueError:
                continue
            if place:
                place = f" for line {line:,} of {place}" if line else f" for {place}"
            found[slot] = Running(start, cpu, seconds, memory, Subject(*subject), place)
        return found


class Section:
    """A kind of work with its limits. `with section.at():` marks one piece of it.

    seconds: of the clock and of the process's CPU time. memory: bytes that the process may grow by.
    has_place: whether its sentence names the file of `set_place`.
    """

    def __init__(
        self, subject: Subject, seconds: float, memory: int, *, has_place: bool = True
    ) -> None:
        self._subject = subject
        self._has_place = has_place
        self._seconds = seconds
        self._memory = memory
        self._place = ""
        self._text = b""

    def at(self, line: int = 0, seconds: float | None = None) -> _Mark:
        """A mark for a line of the current file; 0: for all of its work."""
        return _Mark(self, line, self._seconds if seconds is None else seconds)

    def text(self) -> bytes:
        if not self._text or (self._has_place and self._place != _state.place):
            self._place = _state.place if self._has_place else ""
            for most in (400, 100, 20):  # cut, so that it stays JSON
                parts = [part and part[:most] for part in (self._place, *self._subject)]
                self._text = json.dumps(parts).encode()
                if len(self._text) <= _TEXT_BYTES:
                    break
        return self._text

    @property
    def memory(self) -> int:
        return self._memory


class _Mark:
    """One piece of work; a context manager."""

    __slots__ = ("_line", "_seconds", "_section", "_slot")

    def __init__(self, section: Section, line: int, seconds: float) -> None:
        self._section = section
        self._line = line
        self._seconds = seconds
        self._slot = -1

    def __enter__(self) -> None:
        slots = _state.slots
        if slots is None:
            return
        try:
            self._slot = slots.free.pop()  # atomic, like append
        except IndexError:
            return
        text = self._section.text()
        offset, memory = self._slot * _SLOT_BYTES, slots.memory
        memory[offset + _HEADER.size : offset + _HEADER.size + len(text)] = text
        limits = self._seconds, self._section.memory, self._line, len(text)
        _HEADER.pack_into(memory, offset, time.monotonic(), time.process_time(), *limits)

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        slots = _state.slots
        if slots is not None and self._slot >= 0:
            _START.pack_into(slots.memory, self._slot * _SLOT_BYTES, 0.0)
            slots.free.append(self._slot)
            self._slot = -1


class _State:
    """Of this process."""

    slots: Slots | None = None
    place = ""


_state = _State()


def begin(slots: Slots) -> None:
    """Mark sections in `slots` from now on: this process is confined."""
    _state.slots = slots


def set_place(place: str) -> None:
    """Say which file the sections are about from now on: "trainingFile s3://...", or ""."""
    _state.place = place


def current_place() -> str:
    """The file of `set_place`."""
    return _state.place


def watched(items: Iterable[Item], section: Section) -> Iterator[Item]:
    """The items, each of which is made in the section."""
    source = iter(items)
    while True:
        with section.at():
            item = next(source, _END)
        if item is _END:
            return
        yield item  # type: ignore[misc]


_END = object()
