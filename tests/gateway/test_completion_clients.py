"""Completions with OpenAI's own Python library."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from aiohttp import web
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.gateway.completion_gateway import TONE, Gateway, add_model, gateway_to
from tests.gateway.completion_server import CompletionServer

pytestmark = pytest.mark.slow


def library(it: Gateway, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=it.url, api_key="sk-ft-anna", **options)


@pytest.fixture
async def server() -> CompletionServer:
    return CompletionServer(models={"tone"})


@pytest.fixture
async def it(server: CompletionServer) -> AsyncIterator[Gateway]:
    async with gateway_to(server) as found:
        yield found


async def test_completions(it: Gateway) -> None:
    async with library(it) as client:
        found = await client.completions.create(
            model=TONE, prompt=["a b", "c d"], n=2, logprobs=5, max_tokens=8, user="anna"
        )
    assert [choice.text for choice in found.choices] == ["b a", "b a", "d c", "d c"]
    assert found.model == TONE
    assert found.usage is not None
    assert found.usage.completion_tokens == 4
    Completion.model_validate(found.model_dump(), strict=True)


async def test_streamed_completions(it: Gateway) -> None:
    async with library(it) as client:
        stream = await client.completions.create(model=TONE, prompt="a b c d e", stream=True)
        found = [part async for part in stream]
    assert "".join(part.choices[0].text for part in found) == "e d c b a"
    assert {part.model for part in found} == {TONE}


async def test_chats_and_streamed_chats(it: Gateway) -> None:
    messages: Any = [{"role": "user", "content": "a b c d e"}]
    async with library(it) as client:
        whole = await client.chat.completions.create(model=TONE, messages=messages)
        stream = await client.chat.completions.create(
            model=TONE, messages=messages, stream=True, stream_options={"include_usage": True}
        )
        parts = [part async for part in stream]
    assert whole.choices[0].message.content == "e d c b a"
    ChatCompletion.model_validate(whole.model_dump(), strict=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts[:-1]) == "e d c b a"
    assert parts[-1].usage is not None
    ChatCompletionChunk.model_validate(parts[-1].model_dump(), strict=True)


@pytest.mark.parametrize(
    ("model", "options", "kind", "param"),
    [
        (TONE, {"n": 17}, openai.BadRequestError, "n"),
        (TONE, {"extra_body": {"temprature": 1}}, openai.BadRequestError, "temprature"),
        (TONE, {"suffix": "end"}, openai.BadRequestError, "suffix"),
        ("nosuch", {}, openai.NotFoundError, "model"),
    ],
)
async def test_errors_have_the_kind_and_field_of_the_library(
    it: Gateway, server: CompletionServer, model: str, options: Any, kind: Any, param: str
) -> None:
    async with library(it) as client:
        with pytest.raises(kind) as found:
            await client.completions.create(model=model, prompt="a", **options)
    assert found.value.param == param
    assert found.value.request_id.startswith("req-")
    assert server.paths == []


async def test_an_error_of_the_server_is_shown_by_the_library(it: Gateway) -> None:
    async with library(it) as client:
        with pytest.raises(openai.BadRequestError, match="maximum context length") as found:
            await client.completions.create(model=TONE, prompt="a " * 4000)
    assert found.value.code == "context_length_exceeded"


async def test_a_model_without_a_server_is_asked_for_once(it: Gateway) -> None:
    await add_model(it.cluster, "ada:ft-acme-2026", base="ada")
    async with library(it, max_retries=5) as client:
        with pytest.raises(openai.InternalServerError, match=r"spec\.serving") as found:
            await client.completions.create(model="ada:ft-acme-2026", prompt="a")
    assert found.value.status_code == 503
    assert it.cluster.requests == [("get", "models")]


async def test_a_model_that_loads_is_a_conflict_after_three_requests() -> None:
    server = CompletionServer(loads=10**6)
    async with gateway_to(server, holdSeconds=0) as it, library(it) as client:
        begin = time.monotonic()
        with pytest.raises(openai.ConflictError, match="is not ready after") as found:
            await client.completions.create(model=TONE, prompt="a")
        seconds = time.monotonic() - begin
    assert found.value.code == "model_loading"
    assert len(server.paths) == 3  # two retries
    assert seconds >= 10  # after Retry-After: 5, each


async def test_a_model_that_has_loaded_in_time_costs_the_library_one_request() -> None:
    server = CompletionServer(loads=2)
    async with gateway_to(server, holdSeconds=5) as it, library(it, max_retries=0) as client:
        found = await client.completions.create(model=TONE, prompt="a b")
    assert found.choices[0].text == "b a"


async def test_the_library_skips_the_comments_of_a_loading_model() -> None:
    async with (
        gateway_to(CompletionServer(loads=2), keepAliveSeconds=0.1) as it,
        library(it) as client,
    ):
        stream = await client.completions.create(model=TONE, prompt="a b", stream=True)
        assert "".join([part.choices[0].text async for part in stream]) == "b a"


async def test_a_stream_that_breaks_off_raises_in_the_library() -> None:
    server = CompletionServer(breaks_after=1, pause=0.05)
    async with gateway_to(server) as it, library(it) as client:
        stream = await client.completions.create(model=TONE, prompt="a b c d", stream=True)
        with pytest.raises(openai.APIError, match="closed the connection within its stream"):
            async for _ in stream:
                pass


async def test_overload_is_retried_after_the_servers_wait() -> None:
    times = 1

    async def override(request: web.Request) -> web.StreamResponse:
        nonlocal times
        times -= 1
        if times >= 0:
            return web.Response(status=429, headers={"Retry-After": "1"}, text="too many requests")
        body = json.loads(await request.text())
        choices = [{"index": 0, "text": "x", "logprobs": None, "finish_reason": "stop"}]
        return web.json_response({"id": "1", "model": body["model"], "choices": choices})

    server = CompletionServer(override=override)
    async with gateway_to(server) as it, library(it) as client:
        begin = time.monotonic()
        found = await client.completions.create(model=TONE, prompt="a")
    assert found.choices[0].text == "x"
    assert time.monotonic() - begin >= 1
    assert len(server.paths) == 2
