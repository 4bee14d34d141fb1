"""Streamed completions: part by part, with one end, and with errors within the stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from finetune_gateway.metrics import REGISTRY
from tests.gateway.completion_gateway import (
    TONE,
    Gateway,
    add_model,
    free_port,
    gateway,
    gateway_to,
)
from tests.gateway.completion_server import CompletionServer, serving, until

pytestmark = pytest.mark.slow

FIRST = b'data: {"choices":[{"text":"a"}]}\n\n'
BODY = {"model": TONE, "prompt": "one two three", "stream": True}


def parts(lines: list[str]) -> list[Any]:
    """The JSON of each event but the last one."""
    return [json.loads(line.removeprefix("data: ")) for line in lines if line != "data: [DONE]"]


def texts(lines: list[str]) -> str:
    return "".join(part["choices"][0]["text"] for part in parts(lines))


def raw(*blocks: bytes, pause: float = 0.0, content_type: str = "text/event-stream") -> Any:
    """A server that sends these blocks."""

    async def override(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        await response.prepare(request)
        for block in blocks:
            await response.write(block)
            await asyncio.sleep(pause)
        return response

    return override


async def test_a_stream_has_the_model_of_the_request_in_each_part_and_one_end() -> None:
    server = CompletionServer(models={"tone"})
    async with gateway_to(server) as it:
        lines = await it.events("completions", BODY)
    assert texts(lines) == "three two one"
    assert {part["model"] for part in parts(lines)} == {TONE}
    assert lines[-1] == "data: [DONE]"
    assert lines.count("data: [DONE]") == 1
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


async def test_the_number_of_tokens_is_a_part_only_for_who_wants_it() -> None:
    async with gateway_to(CompletionServer()) as it:
        lines = await it.events("completions", BODY)
        assert all(part["choices"] for part in parts(lines))
        lines = await it.events("completions", BODY | {"stream_options": {"include_usage": True}})
    assert parts(lines)[-1]["choices"] == []
    assert parts(lines)[-1]["usage"]["completion_tokens"] == 1


async def test_a_part_arrives_before_the_next_one_is_written() -> None:
    written: list[int] = []

    async def override(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(b'data: {"model":"x","choices":[{"text":"a"}]}\n\n')
            written.append(number)
            await resume.wait()
            resume.clear()
        await response.write(b"data: [DONE]\n\n")
        return response

    resume = asyncio.Event()
    async with (
        gateway_to(CompletionServer(override=override)) as it,
        it.client.post(f"{it.url}/completions", json=BODY, headers=it.headers) as response,
    ):
        for number in range(3):
            async with asyncio.timeout(5):
                line = await response.content.readline()
                assert line.startswith(b"data: {")
                assert await response.content.readline() == b"\n"
            assert written[-1] == number
            resume.set()
        assert await response.content.read() == b"data: [DONE]\n\n"


async def test_events_that_are_cut_anywhere_are_the_same_events() -> None:
    whole = (
        b': hello\r\n\r\nevent: message\r\ndata: {"model":"x",\r\n'
        b'data: "choices":[{"text":"\xc3\xbc"}]}\r\n\r\n'
        b'id: 3\ndata:{"choices":[{"text":"b"}]}\n\n\n\n'
        b'data: [DONE]\n\ndata: {"late":1}\n\n'
    )
    async with gateway_to(
        CompletionServer(
            override=raw(*(whole[at : at + 3] for at in range(0, len(whole), 3)), pause=0.001)
        )
    ) as it:
        lines = await it.events("completions", BODY)
    assert texts(lines) == "üb"
    assert lines[-1] == "data: [DONE]"
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ((FIRST,), "ended its stream too early"),
        ((FIRST + b'data: {"choi',), "ended its stream too early"),
        ((FIRST + b'data: {"error":{"message":"boom","code":500}}\n\ndata: [DONE]\n\n',), "boom"),
        ((FIRST + b'data: {"object":"error","message":"old boom"}\n\n',), "old boom"),
        ((FIRST + b'data: {"a":' + b"[" * 500 + b"]" * 500 + b"}\n\n",), "nested too deeply"),
        ((FIRST + b"data: oops\n\n",), "no JSON object"),
        ((FIRST + b"data: [1]\n\n",), "no JSON object"),
        ((FIRST + b"data: ", *[b"x" * 2**20] * 9), "too large"),
    ],
    ids=["end", "cut", "error", "former error", "deep", "no JSON", "list", "huge"],
)
async def test_a_stream_that_fails_ends_with_an_error_and_without_done(
    blocks: tuple[bytes, ...], said: str
) -> None:
    async with gateway_to(CompletionServer(override=raw(*blocks))) as it:
        lines = await it.events("completions", BODY)
    first, error = parts(lines)
    assert first["choices"][0]["text"] == "a"
    assert said in error["error"]["message"]
    assert error["error"].keys() == {"message", "type", "param", "code"}
    assert "data: [DONE]" not in lines


async def test_a_server_that_breaks_off_is_an_error_within_the_stream() -> None:
    async with gateway_to(CompletionServer(breaks_after=2, pause=0.05)) as it:
        lines = await it.events("completions", BODY)
    *some, error = parts(lines)
    assert len(some) == 2
    assert "closed the connection within its stream" in error["error"]["message"]


async def test_an_error_before_the_first_part_has_its_status() -> None:
    async with gateway_to(CompletionServer()) as it:
        status, answer = await it.post("completions", BODY | {"prompt": "a " * 4000})
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_server_that_does_not_stream_is_a_502() -> None:
    async def override(_: web.Request) -> web.StreamResponse:
        return web.json_response({"choices": []})

    async with gateway_to(CompletionServer(override=override)) as it:
        status, answer = await it.post("completions", BODY)
    assert (status, answer["error"]["code"]) == (502, "backend_error")
    assert "does not stream" in answer["error"]["message"]


async def test_a_server_that_thinks_for_long_gets_comments_for_its_client() -> None:
    async def override(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.5)
        return await raw(b"data: {}\n\n", b"data: [DONE]\n\n", pause=0.5)(request)

    async with gateway_to(CompletionServer(override=override), keepAliveSeconds=0.1) as it:
        lines = await it.events("completions", BODY)
    at = lines.index("data: {}")
    assert set(lines[:at]) == {": keep-alive"}
    assert len(lines[:at]) >= 2
    assert set(lines[at + 1 : -1]) == {": keep-alive"}
    assert lines[-1] == "data: [DONE]"


async def test_a_client_that_leaves_closes_the_stream_of_the_server() -> None:
    server = CompletionServer(pause=0.02)
    async with gateway_to(server) as it:
        async with it.client.post(
            f"{it.url}/completions", json=BODY | {"prompt": "a " * 2000}, headers=it.headers
        ) as response:
            await response.content.readline()
        async with asyncio.timeout(5):
            await server.lost.wait()


async def test_a_client_that_reads_slowly_slows_the_server_down() -> None:
    sent = 0

    async def override(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        part = b'data: {"choices":[{"text":"' + b"x" * 10**5 + b'"}]}\n\n'
        for _ in range(1000):
            await response.write(part)
            sent += 1
        await response.write(b"data: [DONE]\n\n")
        return response

    async with (
        gateway_to(CompletionServer(override=override)) as it,
        it.client.post(f"{it.url}/completions", json=BODY, headers=it.headers) as response,
    ):
        await response.content.readline()
        before = -1
        async with asyncio.timeout(20):
            while before != sent:
                before = sent
                await asyncio.sleep(0.3)
        assert sent < 500  # of 100 kB: what the buffers of three sockets take
        response.close()


async def test_a_loading_model_is_a_stream_with_comments_and_then_tokens() -> None:
    async with gateway_to(CompletionServer(loads=3), keepAliveSeconds=0.2) as it:
        lines = await it.events("completions", BODY)
    at = next(at for at, line in enumerate(lines) if line.startswith("data: "))
    assert at >= 2
    assert set(lines[:at]) == {": loading"}
    assert texts(lines[at:]) == "three two one"


async def test_the_first_comment_of_a_loading_model_comes_at_once() -> None:
    async with (
        gateway_to(CompletionServer(loads=1000)) as it,
        it.client.post(f"{it.url}/completions", json=BODY, headers=it.headers) as response,
    ):
        assert response.status == 200
        async with asyncio.timeout(0.7):
            assert await response.content.readline() == b": loading\n"


async def test_a_model_that_does_not_load_is_an_error_within_the_stream() -> None:
    backend = {"base": "curie", "url": f"http://127.0.0.1:{await free_port()}/v1"}
    async with gateway(backend, options={"stream_hold_seconds": 0.5}) as it:
        lines = await it.events("completions", BODY)
    assert lines[0] == ": loading"
    (error,) = parts([line for line in lines if line.startswith("data: ")])
    assert error["error"]["code"] == "model_loading"


async def test_an_error_of_a_server_after_it_has_loaded_is_within_the_stream() -> None:
    async with gateway_to(CompletionServer(loads=1)) as it:
        lines = await it.events("completions", BODY | {"prompt": "a " * 4000})
    assert lines[0] == ": loading"
    (error,) = parts(lines[1:])
    assert error["error"]["code"] == "context_length_exceeded"


async def test_a_gateway_that_ends_tells_its_streams_so() -> None:
    async def begin(it: Gateway, body: dict[str, Any]) -> list[str]:
        return await it.events("completions", body)

    server = CompletionServer(pause=0.05)
    async with gateway_to(server, options={"drain_seconds": 0.5}) as it:
        long = asyncio.ensure_future(begin(it, BODY | {"prompt": "a " * 2000}))
        short = asyncio.ensure_future(begin(it, BODY))
        await until(lambda: len(server.paths) == 2)
        it.shut_down()
        lines = await long
        assert "restarts" in parts(lines)[-1]["error"]["message"]
        assert "data: [DONE]" not in lines
        assert (await short)[-1] == "data: [DONE]"


async def test_a_bug_within_a_stream_is_an_error_in_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("finetune_gateway.routes.completions.streaming.renamed", fail)
    async with gateway_to(CompletionServer()) as it:
        lines = await it.events("completions", BODY)
    (error,) = parts(lines)
    assert error["error"]["code"] == "internal_error"
    assert "a bug" in caplog.text


async def test_a_server_that_counts_in_each_part_is_counted_once() -> None:
    def counted() -> float:
        labels = {"model": TONE, "account": "anna", "kind": "completion"}
        return REGISTRY.get_sample_value("finetune_gateway_tokens_total", labels) or 0

    blocks = [
        b'data: {"choices":[{"text":"a"}],"usage":{"completion_tokens":%d}}\n\n' % number
        for number in (1, 2, 3)
    ]
    before = counted()
    async with gateway_to(CompletionServer(override=raw(*blocks, b"data: [DONE]\n\n"))) as it:
        await it.events("completions", BODY)
        assert counted() - before == 3
    async with gateway_to(CompletionServer(override=raw(*blocks))) as it:  # and breaks off
        await it.events("completions", BODY)
    assert counted() - before == 6


async def test_two_servers_are_not_mixed_up() -> None:
    first, second = CompletionServer(models={"a"}), CompletionServer(models={"b"})
    async with (
        serving(first.app()) as one,
        serving(second.app()) as two,
        gateway(
            {"base": "a", "url": f"http://127.0.0.1:{one}/v1"},
            {"base": "b", "url": f"http://127.0.0.1:{two}/v1/"},
        ) as it,
    ):
        for model, base in (("m-a", "a"), ("m-b", "b")):
            await add_model(it.cluster, model, base=base)
            first.models.add("m-a")
            second.models.add("m-b")
            lines = await it.events("completions", BODY | {"model": model})
            assert {part["model"] for part in parts(lines)} == {model}
    assert [body["model"] for body in first.bodies] == ["m-a"]
    assert [body["model"] for body in second.bodies] == ["m-b"]
