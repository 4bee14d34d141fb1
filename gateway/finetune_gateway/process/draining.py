"""The requests in flight, which may finish when the process ends.

aiohttp drops what arrives on a connection once its shutdown has begun, so that an upload in flight
could not finish. The process therefore waits before that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler


class Draining:
    """Counts the requests, and closes each connection after its request once the process ends."""

    def __init__(self) -> None:
        self._count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_closing = False

    def install(self, app: web.Application) -> None:
        """Count the requests of an application that does not run yet."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._count += 1
            self._idle.clear()
            try:
                return await handler(request)
            finally:
                self._count -= 1
                if self._count == 0:
                    self._idle.set()

        app.middlewares.insert(0, count)
        app.on_response_prepare.append(self._close_connection)

    async def finish(self, seconds: float) -> None:
        """Wait for the requests in flight, at most for this long."""
        self._is_closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def _close_connection(self, _: web.Request, response: web.StreamResponse) -> None:
        """Send the next request of a client to another replica."""
        if self._is_closing:
            response.headers["Connection"] = "close"
            response.force_close()
