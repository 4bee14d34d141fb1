"""An answer of server-sent events, as OpenAI's clients read them.

The clients skip comments and the lines `id:` and `event:`. An answer that just ends looks complete
to them, so that every stream ends with `[DONE]` or with an error in it.
"""

from __future__ import annotations

import asyncio
from typing import Self

import orjson
from aiohttp import web

from finetune_api.wire import JsonObject
from finetune_web.problems import Problem

WRITE_SECONDS = 30.0  # for which a client may read nothing while its buffers are full
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until its buffer is full
}


class ServerSentEvents:
    """Writes the events. Every method raises ConnectionError once the client is gone.

    The memory of a stream is bounded: a write waits until the client has read, and a client that
    does not read is disconnected.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self.response = response
        self._request = request

    @classmethod
    async def open(cls, request: web.Request) -> Self:
        """Send the headers, after which an error can only be in the stream."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        return cls(request, response)

    @property
    def is_lost(self) -> bool:
        """Whether the client has closed the connection."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    async def send(self, data: JsonObject, number: int | None = None) -> None:
        """One event. number: its id, with which a client resumes."""
        head = b"" if number is None else b"id: %d\n" % number
        await self._write(head + b"data: " + orjson.dumps(data) + b"\n\n")

    async def keep_alive(self) -> None:
        """A comment, which keeps proxies from closing the connection."""
        await self.comment("keep-alive")

    async def comment(self, text: str) -> None:
        """A line that clients skip. text: on one line."""
        await self._write(f": {text}\n\n".encode())

    async def fail(self, problem: Problem) -> None:
        """The error that ends the stream: clients report that it was interrupted."""
        await self.send(problem.envelope)

    async def done(self) -> None:
        """The mark of a complete stream."""
        await self._write(b"data: [DONE]\n\n")

    async def _write(self, data: bytes) -> None:
        if self.is_lost:
            raise ConnectionResetError("the client has closed the stream")
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self.response.write(data)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client does not read the stream") from None
