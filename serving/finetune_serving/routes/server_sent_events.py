"""An answer of server-sent events. It ends with `[DONE]` or with an error within it.

Clients mistake an answer that just ends for a complete one.
"""

from __future__ import annotations

import asyncio
from typing import Self

import orjson
from aiohttp import web

from finetune_api.wire import JsonObject
from finetune_serving.problems import Problem

WRITE_SECONDS = 30.0  # for which a client may read nothing while its buffers are full
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-store",
    "X-Accel-Buffering": "no",  # nginx would keep events until its buffer is full
}


class ServerSentEvents:
    """Writes the events. Every method raises ConnectionError once the client is gone."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self.response = response
        self._request = request

    @classmethod
    async def open(cls, request: web.Request) -> Self:
        """Send the headers, after which an error can only be in the stream."""
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        return cls(request, response)

    async def send(self, data: JsonObject) -> None:
        await self._write(b"data: " + orjson.dumps(data) + b"\n\n")

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
        try:
            await asyncio.wait_for(self.response.write(data), WRITE_SECONDS)
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionResetError("the client does not read the stream") from None
