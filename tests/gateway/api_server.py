"""A server with answers to which a real API server cannot be forced: garbage, broken watches."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from finetune_gateway.kube.kube_cluster import KubeCluster
from finetune_gateway.kube.own_token import OwnToken
from finetune_gateway.kube.server import Server

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def an_object(version: int, uid: str = "uid-1", **more: Any) -> dict[str, Any]:
    metadata = {"name": "a", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, **more}


def an_event(kind: str, version: int, uid: str = "uid-1") -> dict[str, Any]:
    return {"type": kind, "object": an_object(version, uid)}


def reply(body: Any, status: int = 200, **headers: str) -> Answer:
    """An answer with JSON, or with bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(
            body=data, status=status, headers=headers, content_type="application/json"
        )

    return answer


def refuse(status: int, reason: str = "", **more: Any) -> Answer:
    words = {"kind": "Status", "code": status, "message": f"refused: {reason}", "reason": reason}
    return reply(words | more, status)


def a_list(version: int, *items: dict[str, Any], token: str = "") -> Answer:
    metadata = {"resourceVersion": str(version), "continue": token}
    return reply({"kind": "FineTuneList", "metadata": metadata, "items": list(items)})


def a_watch(*events: dict[str, Any], end: str = "eof") -> Answer:
    """The lines of a watch. end: eof, abort (the connection is lost), or wait (it stays open)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            data = json.dumps(event).encode() + b"\n"
            await response.write(data[:20])  # a line arrives in pieces
            await response.write(data[20:])
        if end == "wait":
            await asyncio.sleep(30)
        if end == "abort":
            await asyncio.sleep(0.05)
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


class ApiServer:
    """Gives the scripted answers in their order, and the last one forever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[web.Request] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@asynccontextmanager
async def serve(*answers: Answer) -> AsyncIterator[ApiServer]:
    server = ApiServer(*answers)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connect(
    *answers: Answer, token: OwnToken | None = None, timeout_seconds: float = 5
) -> AsyncIterator[tuple[KubeCluster, ApiServer]]:
    """A cluster behind a server with these answers."""
    async with serve(*answers) as server:
        found = Server(server.url, None, token)
        async with KubeCluster(found, "ml", timeout_seconds=timeout_seconds) as cluster:
            yield cluster, server
