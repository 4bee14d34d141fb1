"""A model that loads, and the client that repeats a request after 409 at once and forever."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web

from tests.gateway.completion_gateway import TONE, gateway_to
from tests.gateway.completion_server import CompletionServer, error
from tests.gateway.served_gateway import LEASE, Operator, Service, served_gateway, status
from tests.integration.clients.installations import Clients

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HOLD = 3.0  # seconds
LOADS = 10.0  # seconds from the first request, at which the client needs time to start


async def test_the_old_client_asks_once_in_the_time_for_which_a_request_is_held(
    clients: Clients, tmp_path: Path
) -> None:
    server = CompletionServer()
    ready_at = 0.0

    async def load(request: web.Request) -> web.StreamResponse:
        nonlocal ready_at
        ready_at = ready_at or time.monotonic() + LOADS
        if time.monotonic() < ready_at:
            return error(503, "Loading model", code=503)
        server.override = None
        return await server._complete(request, server.bodies[-1])

    server.override = load
    asked = ("api", "completions.create", "-m", TONE, "-p", "a b")
    clients.python("0.28.1")
    async with gateway_to(server, holdSeconds=HOLD) as it:
        done = await asyncio.to_thread(
            clients.openai, "0.28.1", it.url, "sk-ft-anna", *asked, cwd=tmp_path
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("a bb a")  # an echo of the prompt, and the completion
    requests = {headers["x-request-id"] for headers in server.headers}
    assert 2 <= len(requests) <= LOADS / HOLD + 2


async def test_a_model_without_a_server_ends_the_old_client_at_once(
    clients: Clients, tmp_path: Path
) -> None:
    server = CompletionServer()
    clients.python("0.28.1")
    async with gateway_to(server) as it:
        asked = ("api", "completions.create", "-m", "curie:ft-acme:nosuch", "-p", "a")
        done = await asyncio.to_thread(
            clients.openai, "0.28.1", it.url, "sk-ft-anna", *asked, cwd=tmp_path
        )
    assert done.returncode == 1
    assert "does not exist" in done.stdout + done.stderr
    assert server.paths == []


async def test_a_model_whose_pods_do_not_start_ends_the_old_client_after_one_request(
    clients: Clients, tmp_path: Path
) -> None:
    operator = Operator()
    failed = status("failed", message="The image does not exist.")
    clients.python("0.28.1")
    async with served_gateway(operator, Service({}), failed) as it:
        asked = ("api", "completions.create", "-m", TONE, "-p", "a")
        done = await asyncio.to_thread(
            clients.openai, "0.28.1", it.url, "sk-ft-anna", *asked, cwd=tmp_path
        )
    assert done.returncode == 1
    assert "HTTP status code: 503" in done.stdout + done.stderr  # it shows its own text for 503
    assert operator.renewals == [LEASE]
    assert it.cluster.requests == [("get", "models")] * 2  # the second one at the end of the wait
