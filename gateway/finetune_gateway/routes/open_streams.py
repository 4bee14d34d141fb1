"""The streams that are open, all of which end when the process does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from finetune_gateway import metrics
from finetune_web.problems import Kind, Problem, unavailable

MOST_STREAMS = 1000  # each of them has a connection to a client and one to the API server


class OpenStreams:
    """Counts the streams, and asks them to end."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()  # each stream waits for it, too
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def opened(self) -> Iterator[None]:
        """One stream, until the end of the block. Raises Problem if there is no place for it."""
        if self.closing.is_set():
            raise closing()
        if self._count >= MOST_STREAMS:
            raise Problem(
                429,
                f"The gateway has {MOST_STREAMS:,} open streams. Try again later.",
                kind=Kind.BUSY,
                code="too_many_streams",
                retry_after=30,
            )
        self._count += 1
        metrics.OPEN_STREAMS.inc()
        try:
            yield
        finally:
            self._count -= 1
            metrics.OPEN_STREAMS.dec()

    def close(self) -> None:
        """Ask all streams to end, each with a message to its client. New ones are refused."""
        self.closing.set()


def closing() -> Problem:
    """The message of a stream that ends before its FineTune does, because the gateway ends."""
    return unavailable("The gateway restarts. Send the request again to resume the stream.")
