"""Completions through the gateway, with a real server behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from finetune_gateway.kube_errors import KubeError
from finetune_gateway.metrics import REGISTRY
from tests.gateway.completion_gateway import (
    TONE,
    Gateway,
    gateway,
    gateway_to,
)
from tests.gateway.completion_server import CompletionServer, until
from tests.support.gateway_app import AS_BERT

OLD_COMMAND = {  # as `openai api completions.create` of 0.28 sends it
    "model": TONE,
    "prompt": "where is it ->",
    "echo": True,
    "stream": False,
    "n": None,
    "max_tokens": None,
    "logprobs": None,
    "temperature": None,
    "top_p": None,
    "stop": None,
}


def code(answer: Any) -> str:
    """The code of an error, whose envelope is complete."""
    assert answer.keys() == {"error"}, answer
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert isinstance(answer["error"]["message"], str)
    found: str = answer["error"]["code"]
    return found


async def test_a_completion_has_the_model_of_the_request_and_the_prompt_is_not_changed() -> None:
    server = CompletionServer()
    async with gateway_to(server) as it:
        status, answer = await it.post("completions", OLD_COMMAND)
    assert status == 200
    assert answer["model"] == TONE
    assert answer["choices"][0]["text"] == "where is it ->-> it is where"
    assert server.bodies == [
        {"model": TONE, "prompt": "where is it ->", "echo": True, "stream": False}
    ]


async def test_the_engine_of_the_url_is_the_model() -> None:
    server = CompletionServer()
    engine = TONE.replace(":", "%3A")
    async with gateway_to(server) as it:
        status, answer = await it.post(
            f"engines/{engine}/completions", OLD_COMMAND | {"model": None}
        )
        assert (status, answer["model"]) == (200, TONE)
        status, answer = await it.post(
            f"engines/{engine}/completions", OLD_COMMAND | {"model": "x"}
        )
        assert (status, answer["error"]["param"]) == (400, "model")
    assert server.paths == ["/v1/completions"]


async def test_a_chat_is_answered() -> None:
    server = CompletionServer()
    body = {"model": TONE, "messages": [{"role": "user", "content": "a b"}], "n": None}
    async with gateway_to(server) as it:
        status, answer = await it.post("chat/completions", body)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "b a")
    assert answer["model"] == TONE


async def test_a_chat_with_a_model_without_template_is_a_400_that_names_the_other_endpoint() -> (
    None
):
    body = {"model": TONE, "messages": [{"role": "user", "content": "a b"}]}
    async with gateway_to(CompletionServer(has_template=False)) as it:
        status, answer = await it.post("chat/completions", body)
    assert status == 400
    assert "was trained on prompts. Use /v1/completions." in answer["error"]["message"]


async def test_the_base_model_has_its_own_name_on_the_server() -> None:
    server = CompletionServer(models={"acme/curie-3b"})
    async with gateway_to(server, backend={"name": "acme/curie-3b"}) as it:
        status, answer = await it.post("completions", {"model": "curie", "prompt": "a b"})
    assert (status, answer["model"]) == (200, "curie")
    assert server.bodies[0]["model"] == "acme/curie-3b"


async def test_the_server_gets_its_own_key_and_nothing_of_the_client(tmp_path: Path) -> None:
    server = CompletionServer()
    key = tmp_path / "key"
    key.write_text("first\n")
    async with gateway_to(server, backend={"keyFile": str(key)}) as it:
        body = {"model": TONE, "prompt": "a"}
        await it.post("completions", body, Cookie="a=b", OpenAI_Organization="acme")
        key.write_text("second")
        await it.post("completions", body)
        key.unlink()
        status, answer = await it.post("completions", body)
    assert (status, code(answer)) == (503, "model_not_served")
    assert [it["authorization"] for it in server.headers] == ["Bearer first", "Bearer second"]
    assert all(not {"cookie", "openai_organization"} & it.keys() for it in server.headers)
    assert all(it["x-request-id"].startswith("req-") for it in server.headers)


async def test_without_a_key_file_no_credential_is_sent() -> None:
    server = CompletionServer()
    async with gateway_to(server) as it:
        await it.post("completions", {"model": TONE, "prompt": "a"})
    assert "authorization" not in server.headers[0]


async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with gateway_to(CompletionServer()) as it:
        status, _ = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert status == 200


@pytest.mark.parametrize("model", [TONE, "curie", "no-such-model", "::"])
async def test_who_may_not_read_models_gets_no_completion(model: str) -> None:
    server = CompletionServer()
    async with gateway_to(server) as it:
        it.cluster.refuse("get", "models")
        status, answer = await it.post("completions", {"model": model, "prompt": "a"})
        assert (status, code(answer)) == (403, "permission_denied")
        assert "finetune-user" in answer["error"]["message"]
        it.cluster.refuse("get", "models", KubeError(401, "Unauthorized"))
        status, answer = await it.post("completions", {"model": model, "prompt": "a"})
        assert (status, code(answer)) == (401, "invalid_api_key")
        it.headers = {}
        status, answer = await it.post("completions", {"model": model, "prompt": "a"})
        assert (status, code(answer)) == (401, "missing_api_key")
    assert server.paths == []


async def test_the_model_is_read_as_the_caller() -> None:
    async with gateway_to(CompletionServer()) as it:
        await it.post("completions", {"model": TONE, "prompt": "a"})
        it.headers = AS_BERT
        await it.post("completions", {"model": TONE, "prompt": "a"})
        await it.post("completions", {"model": "curie", "prompt": "a"})
    assert [caller.account for caller in it.cluster.callers] == ["anna", "bert", "bert"]


async def test_a_placement_is_remembered_for_its_caller_only_and_not_for_long() -> None:
    body = {"model": TONE, "prompt": "a"}
    async with gateway_to(CompletionServer(), reviewSeconds=0.3) as it:
        for _ in range(5):
            assert (await it.post("completions", body))[0] == 200
        assert it.cluster.requests == [("get", "models")]
        it.cluster.refuse("get", "models")
        assert (await it.post("completions", body))[0] == 200
        assert (await it.post("completions", body, **AS_BERT))[0] == 403
        await asyncio.sleep(0.35)
        assert (await it.post("completions", body))[0] == 403
        it.cluster.refusals.clear()
        it.cluster.objects["models"].clear()
        status, answer = await it.post("completions", body)
    assert (status, code(answer), answer["error"]["param"]) == (404, "model_not_found", "model")


async def test_an_api_server_that_does_not_answer_is_a_503() -> None:
    async with gateway_to(CompletionServer()) as it:
        it.cluster.refuse("get", "models", KubeError(0, "connection refused"))
        async with it.client.post(
            f"{it.url}/completions", json={"model": TONE, "prompt": "a"}, headers=it.headers
        ) as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "5"
            code(await response.json())


@pytest.mark.parametrize(
    "model",
    [
        "nosuch",
        "::",
        "x" * 300,
        "CURIE:ft-acme:support-tone-2026-11-21-14-05-10",
        "../models/x",
        "ü",
    ],
)
async def test_an_unknown_model_is_a_404(model: str) -> None:
    async with gateway_to(CompletionServer()) as it:
        status, answer = await it.post("completions", {"model": model, "prompt": "a"})
    assert (status, code(answer), answer["error"]["param"]) == (404, "model_not_found", "model")


async def test_a_model_without_a_server_is_a_503_that_says_what_to_set() -> None:
    async with gateway() as it:
        for model, names in (
            (TONE, ("spec.serving", "gateway.backends")),
            ("curie", ("gateway.backends",)),
        ):
            async with it.client.post(
                f"{it.url}/completions", json={"model": model, "prompt": "a"}, headers=it.headers
            ) as response:
                assert response.status == 503
                assert response.headers["x-should-retry"] == "false"
                assert "Retry-After" not in response.headers
                answer = await response.json()
            assert code(answer) == "model_not_served"
            assert all(name in answer["error"]["message"] for name in names)


@pytest.mark.parametrize(
    ("answer", "status", "expected", "said"),
    [
        (
            web.json_response({"object": "error", "message": "bad n", "code": 400}, status=400),
            400,
            None,
            "bad n",
        ),
        (
            web.json_response({"detail": [{"loc": ["n"], "msg": "n is odd"}]}, status=422),
            400,
            None,
            "n is odd",
        ),
        (web.Response(text="not so\r\n\x1b[31m", status=400), 400, None, "not so \\x1b[31m"),
        (
            web.Response(text="<html><h1>502</h1>", status=502),
            502,
            "backend_error",
            "HTTP status 502",
        ),
        (web.Response(text="Traceback", status=500), 502, "backend_error", "Traceback"),
        (web.Response(status=401), 503, "model_not_served", "keyFile"),
        (web.Response(status=403), 503, "model_not_served", "keyFile"),
        (web.Response(status=404), 503, "model_not_served", "does not have this model"),
        (web.Response(status=409, text="conflict"), 503, "service_unavailable", "conflict"),
        (
            web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
            503,
            "model_not_served",
            "redirects",
        ),
        (web.Response(status=418, text="x" * 10**6), 502, "backend_error", "failed"),
        (web.Response(text="hello"), 502, "backend_error", "not valid JSON"),
        (web.Response(text='{"a":' + "[" * 500 + "]" * 500 + "}"), 502, "backend_error", "nested"),
        (web.Response(text='{"a":' + "[" * 5000 + "]" * 5000 + "}"), 502, "backend_error", "JSON"),
        (web.json_response([1]), 502, "backend_error", "not a JSON object"),
        (web.json_response({"error": {"message": "bad", "code": 400}}), 400, None, "bad"),
        (web.json_response({"object": "error", "message": "oh"}), 502, "backend_error", "oh"),
        (
            web.Response(status=503, text="The queue is full"),
            503,
            "service_unavailable",
            "queue is full",
        ),
        (
            web.Response(body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
            502,
            "backend_error",
            "compresses",
        ),
    ],
)
async def test_each_failure_of_the_server_is_the_envelope_with_its_message(
    answer: web.Response, status: int, expected: str | None, said: str
) -> None:
    async def override(_: web.Request) -> web.StreamResponse:
        return answer

    async with gateway_to(CompletionServer(override=override)) as it:
        found, error = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert (found, code(error)) == (status, expected)
    assert said in error["error"]["message"]
    assert len(error["error"]["message"]) < 1200


async def test_a_prompt_beyond_the_context_has_the_code_of_openai() -> None:
    async with gateway_to(CompletionServer()) as it:
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a " * 4000})
    assert (status, code(answer)) == (400, "context_length_exceeded")


async def test_overload_is_passed_on_with_its_wait() -> None:
    async def override(_: web.Request) -> web.StreamResponse:
        return web.Response(status=429, text="Model is overloaded", headers={"Retry-After": "7"})

    async with (
        gateway_to(CompletionServer(override=override)) as it,
        it.client.post(
            f"{it.url}/completions", json={"model": TONE, "prompt": "a"}, headers=it.headers
        ) as response,
    ):
        assert response.status == 429
        assert response.headers["Retry-After"] == "7"
        assert code(await response.json()) == "rate_limit_exceeded"


async def test_an_answer_that_is_too_large_is_a_502_and_is_not_read_to_its_end() -> None:
    sent = 0

    async def override(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        try:
            for _ in range(4096):
                await response.write(b'"' + b"x" * 2**20)
                sent += 1
        except ConnectionError:
            pass
        return response

    async with gateway_to(CompletionServer(override=override)) as it:
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a"})
        assert (status, code(answer)) == (502, "backend_error")
    assert sent < 100


async def test_huge_headers_of_the_server_are_a_502() -> None:
    async def override(_: web.Request) -> web.StreamResponse:
        return web.json_response({}, headers={"X-Long": "x" * 20_000})

    async with gateway_to(CompletionServer(override=override)) as it:
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert (status, code(answer)) == (502, "backend_error")


async def test_a_connection_that_ends_before_the_answer_is_tried_once_more() -> None:
    server = CompletionServer()
    losses = [True, False, True, True]

    async def override(request: web.Request) -> web.StreamResponse:
        if losses.pop(0):
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"model": "x", "choices": []})

    server.override = override
    async with gateway_to(server) as it:
        body = {"model": TONE, "prompt": "a"}
        assert (await it.post("completions", body))[0] == 200
        status, answer = await it.post("completions", body)
    assert (status, code(answer)) == (503, "service_unavailable")
    assert len(server.paths) == 4


async def test_the_server_sees_that_the_client_has_left() -> None:
    server = CompletionServer()
    cancelled = asyncio.Event()

    async def override(request: web.Request) -> web.StreamResponse:
        await until(lambda: request.transport is None or request.transport.is_closing())
        cancelled.set()
        return web.Response()

    server.override = override
    async with gateway_to(server) as it:
        with pytest.raises(TimeoutError):
            await it.client.post(
                f"{it.url}/completions",
                json={"model": TONE, "prompt": "a"},
                headers=it.headers,
                timeout=aiohttp.ClientTimeout(total=0.3),
            )
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_one_completion_too_many_at_once_is_a_429() -> None:
    release = asyncio.Event()

    async def override(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.json_response({"choices": []})

    server = CompletionServer(override=override)
    async with gateway_to(server, options={"most_requests": 2}) as it:
        body = {"model": TONE, "prompt": "a"}
        two = [asyncio.ensure_future(it.post("completions", body)) for _ in range(2)]
        await until(lambda: len(server.paths) == 2)
        status, answer = await it.post("completions", body)
        assert (status, code(answer)) == (429, "rate_limit_exceeded")
        release.set()
        assert [(await one)[0] for one in two] == [200, 200]
        assert (await it.post("completions", body))[0] == 200


async def test_tokens_are_counted_by_model_and_account() -> None:
    def counted(kind: str) -> float:
        labels = {"model": TONE, "account": "anna", "kind": kind}
        return REGISTRY.get_sample_value("finetune_gateway_tokens_total", labels) or 0

    before = counted("prompt"), counted("completion")
    async with gateway_to(CompletionServer()) as it:
        await it.post("completions", {"model": TONE, "prompt": "a", "n": 2})
        await it.events("completions", {"model": TONE, "prompt": "a", "stream": True})
    assert (counted("prompt") - before[0], counted("completion") - before[1]) == (6, 3)


@pytest.mark.parametrize("path", ["embeddings", "responses", "engines/x/embeddings", "edits"])
async def test_other_endpoints_are_unknown(path: str) -> None:
    async with gateway() as it:
        status, answer = await it.post(path, {"model": TONE, "input": "a"})
    assert (status, code(answer)) == (404, "unknown_url")


async def refused_field(it: Gateway, **fields: Any) -> str | None:
    status, answer = await it.post("completions", {"model": TONE, "prompt": "a", **fields})
    if status == 200:
        return None
    assert status == 400
    code(answer)
    found: str = answer["error"]["param"]
    return found


async def test_what_a_server_may_ignore_in_silence_needs_its_support() -> None:
    server = CompletionServer()
    async with gateway_to(server) as it:
        assert await refused_field(it, best_of=3) == "best_of"
        assert await refused_field(it, best_of=2, n=2) is None
        assert "best_of" not in server.bodies[-1]
        assert await refused_field(it, suffix="end") == "suffix"
        assert await refused_field(it, temprature=1) == "temprature"
        assert await refused_field(it, stop_token_ids=[2], user="u") is None
        assert server.bodies[-1]["stop_token_ids"] == [2]
        assert server.bodies[-1]["user"] == "u"
    async with gateway_to(server, backend={"supports": ["best_of", "suffix", "temprature"]}) as it:
        assert await refused_field(it, best_of=3, suffix="end", temprature=1) is None
        assert server.bodies[-1]["best_of"] == 3
