"""Server-sent events: the parts of a stream, read from blocks of bytes."""

from __future__ import annotations

from typing import Final

DONE: Final = b"[DONE]"  # the data of the last event
MOST_BYTES = 8 * 2**20  # of one event: the first one can echo a prompt with its log probabilities


class EventReader:
    """Takes blocks of a stream and returns the data of each event that is complete."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._rest = bytearray()  # the begin of a line
        self._searched = 0  # bytes of it without a line break
        self._lines: list[bytes] = []  # the data of an event so far
        self._size = 0  # of these lines

    def feed(self, block: bytes) -> list[bytes]:
        """Raises ValueError for an event that is too large."""
        self._rest += block
        events = []
        start = 0
        while (end := self._rest.find(b"\n", max(start, self._searched))) >= 0:
            line = bytes(self._rest[start:end]).rstrip(b"\r")
            start = end + 1
            if line:
                self._take(line)
            elif self._lines:
                events.append(b"\n".join(self._lines))
                self._lines, self._size = [], 0
        del self._rest[:start]
        self._searched = len(self._rest)
        if self._size + len(self._rest) > self._most:
            raise ValueError(f"an event has more than {self._most:,} bytes")
        return events

    def _take(self, line: bytes) -> None:
        """Keep the data. Comments, ids, and the names of events have no meaning in this API."""
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._lines.append(value)
            self._size += len(value) + 1
