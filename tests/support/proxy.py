"""A reverse proxy in front of the API server or an S3 server that injects faults for tests."""

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp import web

READS = frozenset({"GET", "HEAD", "OPTIONS"})
HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "host"})
HELD_AT_MOST = 60.0  # seconds; a failed test must not hold a request indefinitely


@dataclass(frozen=True)
class Seen:
    """A request as a rule sees it."""

    method: str
    path: str
    is_watch: bool
    number: int  # among the writes, from 1; 0 for a read
    opened: float  # time.monotonic()

    @property
    def resource(self) -> str:
        """The plural, with the subresource if any: `jobs`, `finetunes/status`."""
        parts = self._parts
        return "/".join([parts[0], *parts[2:]]) if parts else ""

    @property
    def is_list(self) -> bool:
        """Whether the request lists a collection."""
        return self.method == "GET" and not self.is_watch and len(self._parts) == 1

    @property
    def _parts(self) -> list[str]:
        return self.path.split("/namespaces/", 1)[-1].split("/")[1:]


@dataclass(frozen=True)
class Answer:
    """An error of the proxy. The server does not receive the request."""

    status: int
    retry_after: int | None = None
    body: bytes = b""  # empty: a Status as the API server sends it


def s3_error(status: int, code: str) -> Answer:
    """An error in the format of S3."""
    words = f"<Error><Code>{code}</Code><Message>a fault of the test</Message></Error>"
    return Answer(status, body=words.encode())


class Store:
    """How the requests and answers of a store differ from those of S3: not at all."""

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        """Change the headers that the server gets; an answer is returned instead of it."""

    def path(self, request: web.Request) -> str:
        """The path and the query that the server gets."""
        return request.path_qs

    def alter_answer(self, request: web.Request, headers: dict[str, str], body: bytes) -> bytes:
        """Change the headers of the answer; returns its body."""
        return body


class Cut:
    """The server handles the request, and the response is lost."""


class Mute:
    """The connection stays open, but no more data arrives."""


@dataclass(frozen=True)
class Hold:
    """The request is forwarded once `released` is set."""

    released: threading.Event


@dataclass(frozen=True)
class Late:
    """The request is forwarded after the client has given up, once `released` is set.

    The server commits it then, and nobody receives the response.
    """

    released: threading.Event
    seconds: float = 0.0  # from the end of the connection


@dataclass(frozen=True)
class Orphaned:
    """The client is killed by `kill` once its request is complete. The server handles it."""

    kill: Callable[[], None]


class Old:
    """The proxy repeats the first response to the same request."""


@dataclass(frozen=True)
class Event:
    """A line of a watch as a rule for events sees it."""

    type: str  # ADDED, MODIFIED, DELETED, BOOKMARK, ERROR
    resource: str  # the plural, such as `jobs`
    object: dict[str, Any]


class Drop:
    """The event never arrives."""


@dataclass(frozen=True)
class Delay:
    """The event arrives later, or the request is forwarded later, perhaps after others."""

    seconds: float


@dataclass(frozen=True)
class Repeat:
    """The event arrives at once, and again later."""

    seconds: float


Fault = Answer | Cut | Mute | Hold | Late | Orphaned | Old | Delay
Rule = Callable[[Seen], Fault | None]
EventRule = Callable[[Event], Drop | Delay | Repeat | None]


def let_pass(_: object) -> None:
    """No fault."""


class FaultyProxy:
    """The proxy as a context manager. Rules may change at any time."""

    def __init__(
        self, target: str, authority: Path | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        """authority: the CA certificate of an HTTPS target. tls: the proxy serves HTTPS."""
        self._server_tls = tls
        self.rule: Rule = let_pass
        self.event_rule: EventRule = let_pass
        self.store = Store()
        self.writes: list[Seen] = []
        self.answered: list[tuple[Seen, int]] = []  # writes with the status of their response
        self.url = ""
        self._target = target
        self._tls = ssl.create_default_context(cafile=str(authority)) if authority else True
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._watches: set[asyncio.Transport] = set()
        self._first: dict[str, bytes] = {}  # the first response to each list
        self._late: set[asyncio.Task[None]] = set()
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
        """Close the connections of all open watches."""
        self._loop.call_soon_threadsafe(self._abort_watches)

    def _abort_watches(self) -> None:
        for transport in list(self._watches):
            transport.abort()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False
        ) as self._session:
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._server_tls)
            await site.start()
            self.port = int(runner.addresses[0][1])
            self.url = f"{'https' if self._server_tls else 'http'}://127.0.0.1:{self.port}"
            self._started.set()
            await self._stop.wait()
            await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # muted, delayed, or held requests
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

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
            words = {"kind": "Status", "code": fault.status, "message": "a fault of the test"}
            body = fault.body or json.dumps(words).encode()
            return web.Response(body=body, status=fault.status, headers=wait)
        if isinstance(fault, Old) and request.path_qs in self._first:
            return web.Response(body=self._first[request.path_qs], content_type="application/json")
        if isinstance(fault, Delay):
            await asyncio.sleep(fault.seconds)
        if isinstance(fault, Hold):
            await request.read()  # while the client is there
            await asyncio.to_thread(fault.released.wait, HELD_AT_MOST)
        if isinstance(fault, Orphaned):
            await request.read()
            fault.kill()
        if isinstance(fault, Late):
            await self._outlast(request, fault)
        try:
            return await self._forward(request, seen, fault)
        except (aiohttp.ClientError, ConnectionError):
            if request.transport is not None:  # one side closed: close the other
                request.transport.abort()
            return web.Response()

    async def _outlast(self, request: web.Request, late: Late) -> None:
        """Wait until the client is gone, and then until the request may be committed."""
        await request.read()
        while request.transport is not None:  # noqa: ASYNC110 - aiohttp has no event for it
            await asyncio.sleep(0.05)
        await asyncio.sleep(late.seconds)
        while not late.released.is_set():  # noqa: ASYNC110 - an event of threads
            await asyncio.sleep(0.05)

    async def _forward(
        self, request: web.Request, seen: Seen, fault: Fault | None
    ) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP_BY_HOP}
        refusal = self.store.alter_request(request, headers)
        if refusal is not None:
            return web.Response(body=refusal.body, status=refusal.status)
        async with self._session.request(
            request.method,
            self._target + self.store.path(request),
            headers=headers,
            data=await request.read() or None,
            skip_auto_headers=("Content-Type",),
        ) as answer:
            if seen.number:
                self.answered.append((seen, answer.status))
            if isinstance(fault, Cut) or request.transport is None:  # None: the client is gone
                await answer.read()
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            if not seen.is_watch:
                return await self._whole(request, seen, answer, kept)
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            self._watches.add(request.transport)
            try:
                await self._stream(answer.content, response, seen)
            finally:
                self._watches.discard(request.transport)
            await response.write_eof()
            return response

    async def _whole(
        self,
        request: web.Request,
        seen: Seen,
        answer: aiohttp.ClientResponse,
        headers: dict[str, str],
    ) -> web.Response:
        body = self.store.alter_answer(request, headers, await answer.read())
        if seen.is_list and answer.status == 200:
            self._first.setdefault(request.path_qs, body)
        if request.method == "HEAD":  # the length of the omitted body
            headers["Content-Length"] = answer.headers.get("Content-Length", "0")
        return web.Response(status=answer.status, headers=headers, body=body or None)

    async def _stream(
        self, events: aiohttp.StreamReader, response: web.StreamResponse, seen: Seen
    ) -> None:
        """Forward a watch line by line. A line may exceed the limit of StreamReader.readline."""
        rest = b""
        async for chunk in events.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            if isinstance(self.rule(seen), Mute):
                await self._stop.wait()
            for line in lines:
                await self._pass_on(line + b"\n", response, seen)

    async def _pass_on(self, line: bytes, response: web.StreamResponse, seen: Seen) -> None:
        fault = None
        if self.event_rule is not let_pass:
            raw = json.loads(line)
            fault = self.event_rule(Event(raw["type"], seen.resource, raw["object"]))
        if fault is None or isinstance(fault, Repeat):
            await response.write(line)
        if isinstance(fault, Delay | Repeat):
            task = asyncio.create_task(_write_late(line, response, fault.seconds))
            self._late.add(task)
            task.add_done_callback(self._late.discard)


async def _write_late(line: bytes, response: web.StreamResponse, seconds: float) -> None:
    await asyncio.sleep(seconds)
    with suppress(ConnectionError):  # the watch has ended
        await response.write(line)
