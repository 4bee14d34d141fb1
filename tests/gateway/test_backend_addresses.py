"""The addresses to which the gateway connects, and those to which it never does."""

from __future__ import annotations

import pytest
from aiohttp import web

from finetune_api.model import Model
from finetune_api.model_names import resource_name
from finetune_api.wire import JsonObject
from finetune_gateway.backends.addresses import refusal
from finetune_gateway.backends.connections import CheckedResolver, ForbiddenAddressError
from finetune_gateway.backends.target import base_target, model_target
from finetune_gateway.settings import Backend, Settings
from tests.gateway.completion_gateway import TONE, Gateway, Names, gateway, own_address
from tests.gateway.completion_server import CompletionServer, serving

API_SERVER = "10.96.0.1"
HOST = "tone.ml.svc"
SERVING = {"service": "tone", "port": 8000}


def serve(it: Gateway, serving_: JsonObject) -> None:
    """Set the Service of the Model, as its owner does."""
    it.cluster.objects["models"][resource_name(TONE)]["spec"]["serving"] = serving_


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.10",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "169.254.169.254",
        "169.254.170.2",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:10.96.0.1",
        "2002:a9fe:a9fe::1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "::127.0.0.1",
        "2001:0:7f00:1::1",
        API_SERVER,
        "fd00::1:1",
        "metadata.google.internal",
        "",
    ],
)
def test_a_service_never_leads_to(address: str) -> None:
    api_server = frozenset({API_SERVER, "fd00::1:1"})
    assert refusal(address, api_server, is_trusted=False) is not None


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7", "172.20.1.1", "192.168.1.1", "240.1.2.3", "8.8.8.8", "fd12::7", "2600::1"],
)
def test_a_service_may_have(address: str) -> None:
    assert refusal(address, frozenset({API_SERVER}), is_trusted=False) is None


@pytest.mark.parametrize(
    ("address", "is_refused"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        (API_SERVER, False),
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("fe80::1", True),
    ],
)
def test_an_administrator_may_name_all_but_link_local_addresses(
    address: str, is_refused: bool
) -> None:
    found = refusal(address, frozenset({API_SERVER}), is_trusted=True)
    assert (found is not None) is is_refused


async def test_one_forbidden_address_among_several_is_enough() -> None:
    names = Names({HOST: ["10.0.0.7", "127.0.0.1"]})
    with pytest.raises(ForbiddenAddressError):
        await CheckedResolver(names, API_SERVER, is_trusted=False).resolve(HOST, 80)


async def test_the_name_of_the_api_server_is_resolved_to_the_addresses_that_are_refused() -> None:
    names = Names({HOST: ["203.0.113.9"], "api.example.com": ["203.0.113.9", "203.0.113.10"]})
    with pytest.raises(ForbiddenAddressError):
        await CheckedResolver(names, "api.example.com", is_trusted=False).resolve(HOST, 80)
    names.addresses[HOST] = ["203.0.113.11"]
    assert await CheckedResolver(names, "api.example.com", is_trusted=False).resolve(HOST, 80)


async def test_a_service_answers_at_the_address_that_was_checked() -> None:
    server, address = CompletionServer(models={"tone"}), own_address()
    names = Names({HOST: [address]})
    async with (
        serving(server.app(), address) as port,
        gateway(resolver=names, api_server=API_SERVER) as it,
    ):
        serve(it, {"service": "tone", "port": port, "name": "tone"})
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a b"})
    assert (status, answer["model"]) == (200, TONE)
    assert names.resolutions == [HOST]
    assert server.headers[0]["host"] == f"{HOST}:{port}"


async def test_a_name_that_changes_its_address_after_the_check_gains_nothing() -> None:
    """DNS rebinding: the second answer would lead to the loopback interface of the gateway."""
    inside, address = CompletionServer(models={"tone"}), own_address()
    outside = CompletionServer(models={"tone"})

    class Rebinding(Names):
        async def resolve(self, host: str, port: int = 0, family: object = 0):  # type: ignore[no-untyped-def]
            found = await super().resolve(host, port, family)
            self.addresses = {HOST: ["127.0.0.1"]}
            return found

    names = Rebinding({HOST: [address]})
    async with (
        serving(outside.app(), address) as port,
        serving(inside.app(), "127.0.0.1", port),
        gateway(resolver=names, api_server=API_SERVER) as it,
    ):
        serve(it, {"service": "tone", "port": port, "name": "tone"})
        body = {"model": TONE, "prompt": "a b"}
        assert (await it.post("completions", body))[0] == 200
        assert names.resolutions == [HOST]  # the connection resolved nothing itself
        await it.backends.close()  # its connections; the next request opens others
        status, answer = await it.post("completions", body)
    assert (status, answer["error"]["code"]) == (503, "model_not_served")
    assert "a loopback address" in answer["error"]["message"]
    assert len(outside.paths) == 1
    assert inside.paths == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", API_SERVER, "0.0.0.0"])
async def test_a_service_with_a_forbidden_address_is_not_served_and_not_retried(
    address: str,
) -> None:
    names = Names({HOST: [address]})
    async with gateway(resolver=names, api_server=API_SERVER, holdSeconds=30) as it:
        serve(it, SERVING)
        async with it.client.post(
            f"{it.url}/completions", json={"model": TONE, "prompt": "a"}, headers=it.headers
        ) as response:
            assert response.status == 503
            assert response.headers["x-should-retry"] == "false"
            answer = await response.json()
    assert answer["error"]["code"] == "model_not_served"
    assert names.resolutions == [HOST]


async def test_a_redirect_is_not_followed() -> None:
    inside = CompletionServer(models={TONE})

    async with serving(inside.app()) as port:

        async def override(_: web.Request) -> web.StreamResponse:
            location = f"http://127.0.0.1:{port}/v1/completions"
            return web.Response(status=307, headers={"Location": location})

        outside, address = CompletionServer(override=override), own_address()
        async with (
            serving(outside.app(), address) as outer,
            gateway(resolver=Names({HOST: [address]})) as it,
        ):
            serve(it, {"service": "tone", "port": outer})
            status, answer = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert (status, answer["error"]["code"]) == (503, "model_not_served")
    assert "redirects" in answer["error"]["message"]
    assert inside.paths == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://[fe80::1]:80/v1",
        "http://[::ffff:169.254.169.254]/v1",
        "http://2852039166/v1",
        "http://0xa9fea9fe/v1",
        "http://169.254.43518/v1",
    ],
)
async def test_an_administrators_url_with_a_link_local_address_gets_no_request(url: str) -> None:
    async with gateway({"base": "curie", "url": url}, holdSeconds=0) as it:
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert status in {502, 503}
    assert answer["error"]["code"] in {"model_not_served", "backend_error"}


def settings(*backends: Backend) -> Settings:
    return Settings(namespace="ml", files="s3://acme/files", backends=list(backends))


def model(**spec: object) -> Model:
    usual = {"uri": "s3://bucket/model", "pretrainingLearningRate": 0.001, "contextLength": 256}
    metadata = {"name": resource_name(TONE), "namespace": "ml", "uid": "u"}
    return Model.parse({"metadata": metadata, "spec": usual | {"id": TONE, "base": "curie"} | spec})


@pytest.mark.parametrize(
    "serving_",
    [
        {"service": "tone.other", "port": 80},
        {"service": "tone.other.svc.cluster.local#", "port": 80},
        {"service": "127.0.0.1", "port": 80},
        {"service": "a@b", "port": 80},
        {"service": "a/b", "port": 80},
        {"service": "tone\n", "port": 80},
        {"service": "tone", "port": "80@evil.example.com"},
        {"service": "tone", "port": 0},
        {},
    ],
)
async def test_an_object_that_no_crd_allows_gets_no_request(serving_: JsonObject) -> None:
    names = Names({})
    async with gateway(resolver=names) as it:
        serve(it, serving_)
        status, answer = await it.post("completions", {"model": TONE, "prompt": "a"})
    assert status >= 500
    assert answer["error"]["code"] == "unreadable_object"
    assert names.resolutions == []


def test_the_service_of_a_model_comes_before_the_backend_of_its_base() -> None:
    backend = Backend(base="curie", url="http://vllm:8000/v1/", supports=["best_of"])
    own = model_target(model(serving=SERVING), settings(backend))
    assert (own.url, own.model, own.is_trusted) == ("http://tone.ml.svc:8000/v1", TONE, False)
    shared = model_target(model(), settings(backend))
    assert (shared.url, shared.model, shared.is_trusted) == ("http://vllm:8000/v1", TONE, True)
    assert base_target("curie", settings(backend)).model == "curie"


async def test_another_model_with_the_same_resource_name_is_not_asked() -> None:
    names = Names({})
    async with gateway(resolver=names) as it:
        serve(it, SERVING)
        other = TONE.replace(":", "-", 1)
        assert resource_name(other) == resource_name(TONE)
        status, answer = await it.post("completions", {"model": other, "prompt": "a"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    assert names.resolutions == []


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@vllm/v1",
        "http://vllm:99999/v1",
        "http://vllm:x/v1",
        "http://:80/v1",
        "http://vllm:0/v1",
        "ftp://vllm/v1",
        "http://vllm/v1?key=x",
        "vllm:8000",
    ],
)
def test_the_url_of_a_backend_has_a_host_and_nothing_secret(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Backend(base="curie", url=url)
