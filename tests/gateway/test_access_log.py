"""The log and the metrics of requests, also of those that are not HTTP or that end early."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from finetune_gateway.metrics import REGISTRY
from finetune_gateway.routes.access_log import AccessLog
from finetune_gateway.routes.fine_tunes import ROUTES
from finetune_web.app_runner import EnvelopeRunner
from tests.support.gateway_app import AS_ANNA, gateway_app, gateway_services


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of an application with the log."""
    app = gateway_app(gateway_services(), ROUTES)
    runner = EnvelopeRunner(app, server="x", access_log_class=AccessLog, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with asyncio.timeout(20):
        yield runner.addresses[0][1]
    await runner.cleanup()


async def send(port: int, text: str, *, waits: bool = True) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    await writer.drain()
    answer = await reader.readline() if waits else b""
    if not waits:
        await asyncio.sleep(0.1)
    writer.close()
    return answer


def count(method: str, route: str, status: str) -> float:
    registry: CollectorRegistry = REGISTRY
    labels = {"method": method, "route": route, "status": status}
    return registry.get_sample_value("finetune_gateway_requests_total", labels) or 0


AUTH = f"Host: x\r\nAuthorization: {AS_ANNA['Authorization']}\r\n"


async def test_a_request_has_one_line_with_its_route_and_its_account(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = count("GET", "/v1/fine-tunes/{id}", "404")
    with caplog.at_level(logging.INFO, "finetune_gateway.requests"):
        async with served() as port:
            await send(port, f"GET /v1/fine-tunes/ft-private?a=b HTTP/1.1\r\n{AUTH}\r\n")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "finetune_gateway.requests"]
    assert line.startswith("req-")
    assert " GET /v1/fine-tunes/{id} 404 " in line
    assert line.endswith(" anna")
    assert "private" not in caplog.text
    assert AS_ANNA["Authorization"].split()[1] not in caplog.text
    assert count("GET", "/v1/fine-tunes/{id}", "404") == before + 1


@pytest.mark.parametrize(
    "text",
    [
        "garbage\r\n\r\n",
        f"GET /v1/models HTTP/1.1\r\nX: {'a' * 2**17}\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_line_without_a_trace(
    caplog: pytest.LogCaptureFixture, text: str
) -> None:
    with caplog.at_level(logging.INFO):
        async with served() as port:
            assert b" 400 " in await send(port, text)
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == []
    assert " unknown 400 " in caplog.text


async def test_a_client_that_leaves_in_its_body_is_no_error_of_the_gateway(
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = f"POST /v1/fine-tunes HTTP/1.1\r\n{AUTH}Content-Length: 100\r\n\r\n{{"
    with caplog.at_level(logging.INFO):
        async with served() as port:
            await send(port, text, waits=False)
            while " 499 " not in caplog.text:  # noqa: ASYNC110 - a line of the log
                await asyncio.sleep(0.02)
    assert "POST /v1/fine-tunes 499" in caplog.text
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == []


async def test_a_method_that_no_route_has_is_no_label() -> None:
    before = count("unknown", "unknown", "404")
    async with served() as port:
        assert b"404" in await send(port, f"PROPFIND /v1/fine-tunes HTTP/1.1\r\n{AUTH}\r\n")
    assert count("unknown", "unknown", "404") == before + 1


async def test_requests_are_counted_at_every_level_of_the_log() -> None:
    before = count("GET", "/v1/fine-tunes", "200")
    logger = logging.getLogger("finetune_gateway.requests")
    logger.setLevel(logging.ERROR)
    try:
        async with served() as port:
            assert b"200" in await send(port, f"GET /v1/fine-tunes HTTP/1.1\r\n{AUTH}\r\n")
    finally:
        logger.setLevel(logging.NOTSET)
    assert count("GET", "/v1/fine-tunes", "200") == before + 1
