"""Requests for a model that loads: held, then 409, which is the only one of the gateway."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from tests.gateway.completion_gateway import TONE, free_port, gateway, gateway_to
from tests.gateway.completion_server import CompletionServer, serving

pytestmark = pytest.mark.slow

BODY = {"model": TONE, "prompt": "a b"}


async def test_a_request_is_held_until_the_model_is_loaded() -> None:
    server = CompletionServer(loads=2)
    async with gateway_to(server) as it:
        status, answer = await it.post("completions", BODY)
    assert (status, answer["choices"][0]["text"]) == (200, "b a")
    assert len(server.paths) == 3


async def test_a_request_is_held_until_the_server_listens() -> None:
    port = await free_port()
    server = CompletionServer(models={TONE})
    backend = {"base": "curie", "url": f"http://127.0.0.1:{port}/v1"}
    async with gateway(backend, holdSeconds=5) as it:
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await asyncio.sleep(0.3)
        assert not asked.done()
        async with serving(server.app(), port=port):
            status, _ = await asked
    assert status == 200


async def test_a_model_that_does_not_load_in_time_is_a_409_with_a_wait() -> None:
    server = CompletionServer(loads=1000)
    async with gateway_to(server, holdSeconds=0.6) as it:
        begin = time.monotonic()
        async with it.client.post(
            f"{it.url}/completions", json=BODY, headers=it.headers
        ) as response:
            answer = await response.json()
            assert response.status == 409
            assert response.headers["Retry-After"] == "5"
            assert "x-should-retry" not in response.headers
    assert 0.6 <= time.monotonic() - begin < 3
    assert answer["error"]["code"] == "model_loading"
    assert "Loading model" in answer["error"]["message"]
    assert 3 <= len(server.paths) <= 6  # with pauses, and once at the end


async def test_without_time_to_hold_there_is_one_attempt() -> None:
    server = CompletionServer(loads=1000)
    async with gateway_to(server, holdSeconds=0) as it:
        assert (await it.post("completions", BODY))[0] == 409
    assert len(server.paths) == 1


async def test_refused_connections_are_a_409_at_the_end() -> None:
    backend = {"base": "curie", "url": f"http://127.0.0.1:{await free_port()}/v1"}
    async with gateway(backend, holdSeconds=0.3) as it:
        status, answer = await it.post("completions", BODY)
    assert (status, answer["error"]["code"]) == (409, "model_loading")
    assert "accepts no connection" in answer["error"]["message"]


@pytest.mark.parametrize("status", [503, 429])
async def test_a_server_that_says_that_it_loads_is_waited_for(status: int) -> None:
    server = CompletionServer(models={TONE})
    times = 2

    async def override(_: web.Request) -> web.StreamResponse:
        nonlocal times
        times -= 1
        if times < 0:
            return web.json_response({"choices": [], "model": TONE})
        error = {"message": "Wait.", "code": "model_loading"}
        return web.json_response({"error": error}, status=status)

    server.override = override
    async with gateway_to(server) as it:
        assert (await it.post("completions", BODY))[0] == 200
    assert len(server.paths) == 3


async def test_a_name_without_an_address_is_held_and_then_no_409() -> None:
    async with gateway({"base": "curie", "url": "http://nosuch.invalid/v1"}, holdSeconds=0.3) as it:
        status, answer = await it.post("completions", BODY)
    assert (status, answer["error"]["code"]) == (503, "model_not_served")
    assert "no such Service" in answer["error"]["message"]


async def test_a_gateway_that_ends_sends_held_requests_elsewhere() -> None:
    async with gateway_to(CompletionServer(loads=1000), holdSeconds=30) as it:
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await asyncio.sleep(0.3)
        begin = time.monotonic()
        it.shut_down()
        status, answer = await asked
    assert time.monotonic() - begin < 2
    assert (status, answer["error"]["code"]) == (503, "service_unavailable")


async def test_a_client_that_leaves_ends_the_attempts() -> None:
    server = CompletionServer(loads=1000)
    async with gateway_to(server, holdSeconds=30) as it:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await it.post("completions", BODY)
        await asyncio.sleep(1.5)
        attempts = len(server.paths)
        await asyncio.sleep(2.5)
    assert len(server.paths) == attempts
