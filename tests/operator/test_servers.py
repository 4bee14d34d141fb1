"""The operator's own servers: every family of addresses that the node has."""

import errno
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from finetune_operator.main import _serve_http


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as made:
        return int(made.getsockname()[1])


async def read(url: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return await answer.text()


async def served(host: str) -> str:
    async def say(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app, port = web.Application(), free_port()
    app.add_routes([web.get("/healthz", say)])
    runner = await _serve_http(port, app)
    try:
        return await read(f"http://{host}:{port}/healthz")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_health_and_metrics_are_served_on_both_families(host: str) -> None:
    if host == "[::1]" and not socket.has_dualstack_ipv6():
        pytest.skip("the machine has no IPv6")
    assert await served(host) == "ok"


async def test_a_node_whose_settings_disable_ipv6_serves_on_ipv4(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = socket.create_server

    def refuse(address: tuple[str, int], **options: Any) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, **options)

    monkeypatch.setattr(socket, "create_server", refuse)
    assert await served("127.0.0.1") == "ok"


async def test_a_port_in_use_is_an_error() -> None:
    with (
        socket.create_server(("", 0)) as taken,
        pytest.raises(OSError, match="in use") as caught,
    ):
        await _serve_http(taken.getsockname()[1], web.Application())
    assert caught.value.errno == errno.EADDRINUSE
