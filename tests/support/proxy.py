"""A reverse proxy before the API server that misbehaves as a test says, for one client only."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

READS = frozenset({"GET", "HEAD", "OPTIONS"})
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "host"})


@dataclass(frozen=True)
class Seen:
    """One request, as a rule sees it."""

    method: str
    path: str
    is_watch: bool
    number: int  # among the requests that change something, from 1; 0 for the others
    opened: float  # time.monotonic()

    @property
    def resource(self) -> str:
        """`jobs`, `finetunes/status`: the plural, and the subresource where there is one."""
        parts = self.path.split("/namespaces/", 1)[-1].split("/")[1:]
        return "/".join([parts[0], *parts[2:]]) if parts else ""


@dataclass(frozen=True)
class Answer:
    """An error of the proxy's own; the API server never sees the request."""

    status: int
    retry_after: int | None = None


class Cut:
    """The API server does it, and the answer is lost."""


class Mute:
    """The connection stays open, and nothing comes any more."""


Rule = Callable[[Seen], Answer | Cut | Mute | None]


def let_pass(_: Seen) -> None:
    """No fault."""


class FaultyProxy:
    """Plain HTTP before, HTTPS behind; `rule` may change at any time. A context manager."""

    def __init__(self, target: str, authority: Path) -> None:
        self.rule: Rule = let_pass
        self.writes: list[Seen] = []
        self.url = ""
        self._target = target
        self._tls = ssl.create_default_context(cafile=str(authority))
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._watches: set[asyncio.Transport] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="faulty-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(10):
            raise RuntimeError("the proxy does not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def break_watches(self) -> None:
        """All that are open now; the client sees a closed connection."""
        self._loop.call_soon_threadsafe(self._abort_watches)

    def _abort_watches(self) -> None:
        for transport in list(self._watches):
            transport.abort()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        number = 0
        if request.method not in READS:
            number = len(self.writes) + 1
        seen = Seen(
            request.method, request.path, "watch" in request.query, number, time.monotonic()
        )
        if number:
            self.writes.append(seen)
        fault = self.rule(seen)
        if isinstance(fault, Answer):
            wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            body = {"kind": "Status", "code": fault.status, "message": "a fault of the test"}
            return web.json_response(body, status=fault.status, headers=wait)
        try:
            return await self._forward(request, seen, fault)
        except (aiohttp.ClientError, ConnectionError):
            if request.transport is not None:  # either side went: so does the other
                request.transport.abort()
            return web.Response()

    async def _forward(
        self, request: web.Request, seen: Seen, fault: Cut | Mute | None
    ) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        async with self._session.request(
            request.method,
            self._target + request.path_qs,
            headers=headers,
            data=await request.read() or None,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            if isinstance(fault, Cut):
                await answer.read()
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            transport = request.transport
            assert transport is not None
            if seen.is_watch:
                self._watches.add(transport)
            try:
                async for chunk in answer.content.iter_any():
                    if isinstance(self.rule(seen) if seen.is_watch else None, Mute):
                        await self._stop.wait()
                    await response.write(chunk)
                await response.write_eof()
            finally:
                self._watches.discard(transport)
            return response
