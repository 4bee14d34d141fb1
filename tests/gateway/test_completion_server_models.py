"""Completions from the server of `finetune_serving`, to which the gateway names the models."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from finetune_api.model import Model
from finetune_api.model_names import resource_name
from finetune_api.uris import S3Uri
from finetune_gateway.backends.published_model import DIGEST_HEADER, URI_HEADER, headers_of
from finetune_gateway.backends.target import base_target, model_target
from finetune_gateway.settings import Settings
from finetune_serving.models import addresses
from finetune_web.problems import Problem
from tests.gateway.completion_gateway import TONE, Gateway, add_model, gateway
from tests.gateway.completion_server import CompletionServer, serving
from tests.support.gateway_app import OUTPUT, gateway_settings

DIGEST = "ab" * 32
ORIGIN = {"name": "tone", "uid": "0a1b2c3d-0000-4000-8000-000000000000"}
URI = f"{OUTPUT}/ml/tone-0a1b2c3d/model"
PUBLISHED = {"fineTune": ORIGIN, "manifestSha256": DIGEST}
SERVER = {"url": "http://completions:8000/v1/", "secretFile": "/etc/secret/token"}
BODY = {"model": TONE, "prompt": "a b"}


def model(**spec: Any) -> Model:
    usual: dict[str, Any] = {"id": TONE, "uri": URI, "base": "curie"}
    usual |= {"pretrainingLearningRate": 0.001, "contextLength": 64}
    return Model.parse(
        {
            "metadata": {"name": resource_name(TONE), "namespace": "ml", "uid": "1"},
            "spec": usual | PUBLISHED | spec,
        }
    )


async def publish(it: Gateway, **spec: Any) -> None:
    """Replace the Model of the gateway by one that a FineTune has published."""
    it.cluster.objects["models"].clear()
    it.backends.placements = type(it.backends.placements)(0)
    await add_model(it.cluster, TONE, **(PUBLISHED | spec))


def test_the_headers_are_those_that_the_server_reads() -> None:
    assert (URI_HEADER, DIGEST_HEADER) == (addresses.URI_HEADER, addresses.DIGEST_HEADER)
    settings = gateway_settings(server=SERVER)
    found = dict(headers_of(model(), settings))
    assert found == {URI_HEADER: URI, DIGEST_HEADER: DIGEST}
    source = addresses.GatewayModels([S3Uri.parse(f"{OUTPUT}/ml")], addresses.FixedModels({}))
    address = source.find(TONE, found)
    assert address is not None
    assert (str(address.location), address.manifest_sha256) == (URI, DIGEST)


def test_the_model_s_service_is_first_then_the_backend_and_then_the_server() -> None:
    backends = [{"base": "curie", "url": "http://vllm:8000/v1"}]
    both = gateway_settings(server=SERVER, backends=backends)
    own = model_target(model(serving={"service": "own", "port": 80}), both)
    assert (own.url, own.headers) == ("http://own.ml.svc:80/v1", ())
    assert (model_target(model(), both).url, model_target(model(), both).headers) == (
        "http://vllm:8000/v1",
        (),
    )
    found = model_target(model(), gateway_settings(server=SERVER))
    assert (found.url, found.model, found.is_trusted) == ("http://completions:8000/v1", TONE, True)
    assert found.key_file == Path("/etc/secret/token")


def test_a_model_of_the_catalog_has_no_files_for_the_server() -> None:
    with pytest.raises(Problem) as caught:
        base_target("curie", gateway_settings(server=SERVER))
    assert (caught.value.status, caught.value.code) == (503, "model_not_served")


def test_the_server_of_a_laptop_has_the_base_models_too() -> None:
    settings = gateway_settings(server=SERVER | {"baseModels": ["curie"]})
    found = base_target("curie", settings)
    assert (found.url, found.model) == ("http://completions:8000/v1", "curie")
    assert found.headers == ()  # the server knows where it is
    assert found.key_file == Path("/etc/secret/token")
    with pytest.raises(Problem, match="base model 'ada'"):
        base_target("ada", settings)
    backend = {"base": "curie", "url": "http://vllm:8000/v1"}
    settings = gateway_settings(server=SERVER | {"baseModels": ["curie"]}, backends=[backend])
    assert base_target("curie", settings).url == "http://vllm:8000/v1"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"uri": "s3://bucket/out/other/tone-0a1b2c3d/model"}, "spec.uri is not"),
        ({"uri": "s3://other/out/ml/tone-0a1b2c3d/model"}, "spec.uri is not"),
        ({"uri": "s3://bucket/out/ml/tone-0a1b2c3d"}, "spec.uri is not"),
        ({"uri": "s3://bucket/out/ml/tone-0a1b2c3d/model/adapter"}, "spec.uri is not"),
        ({"uri": "s3://bucket/out/ml/other-0a1b2c3d/model"}, "spec.uri is not"),
        ({"fineTune": ORIGIN | {"uid": "0a1b2c3e"}}, "spec.uri is not"),
        ({"fineTune": ORIGIN | {"name": "x/../../other/tone"}}, "no valid name and UID"),
        ({"fineTune": ORIGIN | {"name": "tone\r\nX: y"}}, "no valid name and UID"),
        ({"fineTune": ORIGIN | {"uid": "../../.."}}, "no valid name and UID"),
        ({"fineTune": ORIGIN | {"uid": ""}}, "no valid name and UID"),
        ({"fineTune": None}, "spec.fineTune is not set"),
        ({"manifestSha256": None}, "spec.manifestSha256"),
        ({"manifestSha256": "AB" * 32}, "spec.manifestSha256"),
        ({"manifestSha256": "ab" * 31 + "\r\n"}, "spec.manifestSha256"),
    ],
)
def test_an_address_that_a_user_could_have_written_is_not_used(
    spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(Problem) as caught:
        headers_of(model(**spec), gateway_settings(server=SERVER))
    assert (caught.value.status, caught.value.code) == (503, "model_not_served")
    assert said in caught.value.message
    assert "spec.serving" in caught.value.message


@pytest.mark.parametrize("output", [f"{OUTPUT}/", "s3://bucket"])
def test_the_output_is_that_of_the_settings(output: str) -> None:
    settings = gateway_settings(server=SERVER, output=output)
    uri = f"{output.rstrip('/')}/ml/tone-0a1b2c3d/model"
    assert dict(headers_of(model(uri=uri), settings))[URI_HEADER] == uri


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"output": ""}, "server requires output"),
        ({"server": {"url": "http://a:8000/v1"}}, "secretFile"),
        ({"server": SERVER | {"url": "http://u:p@a/v1"}}, "has a password"),
        ({"server": SERVER | {"url": "ftp://a/v1"}}, "pattern"),
        ({"server": SERVER | {"models": []}}, "extra_forbidden"),
    ],
)
def test_wrong_settings_of_the_server_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        gateway_settings(**({"server": SERVER} | changes))


async def test_the_server_gets_the_address_and_the_secret_and_nothing_of_the_caller(
    tmp_path: Path,
) -> None:
    server, secret = CompletionServer(models={TONE}), tmp_path / "token"
    secret.write_text("first\n")
    async with serving(server.app()) as port, gateway(server=of(port, secret)) as it:
        await publish(it)
        forged = {URI_HEADER: "s3://bucket/secret/model", DIGEST_HEADER: "0" * 64, "Cookie": "a=b"}
        status, answer = await it.post("completions", BODY, **forged)
        assert (status, answer["model"], answer["choices"][0]["text"]) == (200, TONE, "b a")
        secret.write_text("second")
        assert (await it.post("completions", BODY | {"best_of": 3}))[0] == 200
        status, answer = await it.post("completions", BODY | {"suffix": "x"})
        assert (status, answer["error"]["param"]) == (400, "suffix")
    assert [seen["authorization"] for seen in server.headers] == ["Bearer first", "Bearer second"]
    for seen in server.headers:
        assert (seen[URI_HEADER.lower()], seen[DIGEST_HEADER.lower()]) == (URI, DIGEST)
        assert "cookie" not in seen and "sk-ft-anna" not in str(seen)
    assert server.bodies[1]["best_of"] == 3


async def test_a_foreign_address_and_a_caller_without_the_right_never_reach_the_server(
    tmp_path: Path,
) -> None:
    server, secret = CompletionServer(models={TONE}), tmp_path / "token"
    secret.write_text("s")
    async with serving(server.app()) as port, gateway(server=of(port, secret)) as it:
        await publish(it, uri="s3://bucket/out/other/tone-0a1b2c3d/model")
        for body in (BODY, BODY | {"stream": True}):
            status, answer = await it.post("completions", body)
            assert (status, answer["error"]["code"]) == (503, "model_not_served")
        status, answer = await it.post("completions", BODY | {"model": "curie"})
        assert (status, answer["error"]["code"]) == (503, "model_not_served")
        await publish(it)
        it.cluster.refuse("get", "models")
        status, answer = await it.post("completions", BODY)
        assert (status, answer["error"]["code"]) == (403, "permission_denied")
        it.cluster.refusals.clear()
        secret.unlink()
        status, answer = await it.post("completions", BODY)
        assert (status, answer["error"]["code"]) == (503, "model_not_served")
        assert "secretFile" in answer["error"]["message"]
    assert server.paths == []


async def test_a_server_that_holds_requests_itself_is_not_asked_beyond_the_time(
    tmp_path: Path,
) -> None:
    async def loads(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.7)
        return failure(409, "model_loading", "The model 'x' is still loading after 1 s.")

    server, secret = CompletionServer(override=loads), tmp_path / "token"
    secret.write_text("s")
    async with serving(server.app()) as port, gateway(server=of(port, secret)) as it:
        await publish(it)
        start = time.monotonic()
        status, answer = await it.post("completions", BODY)
    assert (status, answer["error"]["code"]) == (409, "model_loading")
    assert (len(server.paths), time.monotonic() - start < 1.2) == (1, True)


async def test_a_server_that_refuses_at_once_is_asked_again(tmp_path: Path) -> None:
    left = 2

    async def loads(_: web.Request) -> web.StreamResponse:
        nonlocal left
        left -= 1
        if left >= 0:
            return failure(409, "model_loading", "The model is still loading.")
        return web.json_response({"choices": [], "model": TONE})

    server, secret = CompletionServer(override=loads), tmp_path / "token"
    secret.write_text("s")
    async with serving(server.app()) as port, gateway(server=of(port, secret)) as it:
        await publish(it)
        assert (await it.post("completions", BODY))[0] == 200
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    ("status", "code", "expected", "retries"),
    [
        (503, "model_unusable", (503, "model_unusable"), "false"),
        (503, "service_unavailable", (503, "service_unavailable"), None),
        (429, "rate_limit_exceeded", (429, "rate_limit_exceeded"), None),
        (401, "invalid_api_key", (503, "model_not_served"), "false"),
    ],
)
async def test_its_errors_are_not_waited_for(
    tmp_path: Path, status: int, code: str, expected: tuple[int, str], retries: str | None
) -> None:
    async def refuses(_: web.Request) -> web.StreamResponse:
        return failure(status, code, "The model 'curie:ft-acme:loading-dock' cannot be used.")

    server, secret = CompletionServer(override=refuses), tmp_path / "token"
    secret.write_text("s")
    async with serving(server.app()) as port, gateway(server=of(port, secret)) as it:
        await publish(it)
        async with it.client.post(
            f"{it.url}/completions", json=BODY, headers=it.headers
        ) as response:
            answer = await response.json()
            assert (response.status, answer["error"]["code"]) == expected
            assert response.headers.get("x-should-retry") == retries
            assert "cannot be used" in answer["error"]["message"]
    assert len(server.paths) == 1


def of(port: int, secret: Path) -> dict[str, str]:
    return {"url": f"http://127.0.0.1:{port}/v1", "secretFile": str(secret)}


def failure(status: int, code: str, message: str) -> web.Response:
    """The envelope of the completion server."""
    error = {"message": message, "type": "server_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


def test_without_the_server_nothing_changes() -> None:
    settings = Settings.model_validate({"namespace": "ml", "files": "s3://bucket/gateway"})
    assert settings.server is None
    with pytest.raises(Problem, match=r"gateway\.server\.enabled"):
        model_target(model(), gateway_settings())
