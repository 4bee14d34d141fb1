"""The requests to the API server: their credentials, their bounds, and their errors."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from finetune_gateway.kube import api_session
from finetune_gateway.kube.answers import error_of
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.kube_cluster import KubeCluster
from finetune_gateway.kube.own_token import OwnToken
from finetune_gateway.kube.rights import MOST_ANSWERS, Rights
from finetune_gateway.kube.server import Server
from finetune_gateway.kube_errors import KubeError
from tests.gateway.api_server import (
    a_list,
    an_object,
    connect,
    refuse,
    reply,
    serve,
)

TOKEN = "eyJ0.SECRETTOKEN.c2ln"
WITH_TOKEN = Caller({"Authorization": f"Bearer {TOKEN}"})
WITH_KEY = Caller({"Impersonate-User": "system:serviceaccount:ml:bert"}, "bert")


async def test_a_token_of_a_caller_is_the_only_credential_of_its_request() -> None:
    async with connect(reply(an_object(1)), token=OwnToken("own")) as (cluster, server):
        await cluster.get(WITH_TOKEN, "finetunes", "a")
    headers = server.requests[0].headers
    assert headers.getall("Authorization") == [f"Bearer {TOKEN}"]
    assert not [name for name in headers if name.lower().startswith("impersonate")]


async def test_the_account_of_a_key_is_impersonated_with_the_token_of_the_gateway() -> None:
    async with connect(reply(an_object(1)), token=OwnToken("own")) as (cluster, server):
        await cluster.get(WITH_KEY, "finetunes", "a")
    headers = server.requests[0].headers
    assert headers.getall("Authorization") == ["Bearer own"]
    assert headers.getall("Impersonate-User") == ["system:serviceaccount:ml:bert"]


async def test_a_renewed_token_of_the_gateway_is_used_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with connect(reply(an_object(1)), token=OwnToken(file=file)) as (cluster, server):
        await cluster.get(WITH_KEY, "finetunes", "a")
        (tmp_path / "new").write_text("second\n")
        (tmp_path / "new").rename(file)
        await cluster.get(WITH_KEY, "finetunes", "a")
        file.unlink()  # the mount is being replaced
        await cluster.get(WITH_KEY, "finetunes", "a")
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer second", "Bearer second"]


@pytest.mark.parametrize("token", [None, OwnToken(""), OwnToken(file=Path("/nonexistent"))])
async def test_without_a_token_of_its_own_the_gateway_sends_nothing_for_a_key(
    token: OwnToken | None,
) -> None:
    async with connect(reply(an_object(1)), token=token) as (cluster, server):
        with pytest.raises(KubeError, match="token of its own") as caught:
            await cluster.get(WITH_KEY, "finetunes", "a")
        assert caught.value.status == 0
        assert server.requests == []


async def test_a_refused_token_of_the_gateway_is_no_error_of_the_caller() -> None:
    async with connect(refuse(401, "Unauthorized"), token=OwnToken("own")) as (cluster, _):
        with pytest.raises(KubeError) as caught:
            await cluster.get(WITH_KEY, "finetunes", "a")
        assert caught.value.status == 0
        with pytest.raises(KubeError) as caught:
            await cluster.get(WITH_TOKEN, "finetunes", "a")
        assert caught.value.status == 401


async def test_a_redirect_is_an_error_and_never_followed() -> None:
    async with serve(reply(an_object(1))) as other:
        for status in (301, 302, 303, 307, 308, 304):
            answer = reply(b"", status, Location=f"{other.url}/steal")
            async with connect(answer) as (cluster, _):
                with pytest.raises(KubeError, match="redirect") as caught:
                    await cluster.get(WITH_TOKEN, "finetunes", "a")
                assert caught.value.status == 0
        assert other.requests == []


async def test_no_cookie_travels_from_one_caller_to_the_next() -> None:
    async with serve(reply(an_object(1), **{"Set-Cookie": "session=a"})) as server:
        named = server.url.replace("127.0.0.1", "localhost")  # an address has no cookies
        async with KubeCluster(Server(named, None, None), "ml") as cluster:
            await cluster.get(WITH_TOKEN, "finetunes", "a")
            await cluster.get(WITH_TOKEN, "finetunes", "a")
    assert len(server.requests) == 2
    assert "Cookie" not in server.requests[1].headers


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'"a"', b"null", b"NaN", b"\xff\xfe", b"[" * 100_000]
)
async def test_an_answer_that_is_no_object_is_an_error(body: bytes) -> None:
    async with connect(reply(body)) as (cluster, _):
        with pytest.raises(KubeError, match="An answer of the API server") as caught:
            await cluster.get(WITH_TOKEN, "finetunes", "a")
        assert caught.value.status == 0
        with pytest.raises(KubeError):
            await cluster.list(WITH_TOKEN, "models")


class Flood:
    """An answer without an end, and without a line break."""

    def __init__(self) -> None:
        self.sent = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while self.sent < 50 * 2**20:
            await response.write(b" " * 2**16)
            self.sent += 2**16
        return response


async def test_an_endless_answer_is_read_to_its_bound_only() -> None:
    flood = Flood()
    async with connect(flood) as (cluster, _):
        with pytest.raises(KubeError, match="more than 8,388,608 bytes"):
            await cluster.get(WITH_TOKEN, "finetunes", "a")
        await asyncio.sleep(0.1)
    assert flood.sent < 20 * 2**20


async def test_an_endless_event_is_read_to_its_bound_only() -> None:
    flood = Flood()
    async with connect(a_list(1, an_object(1)), flood, refuse(403)) as (cluster, _):
        changes = cluster.follow(WITH_TOKEN, "finetunes", "a")
        await anext(changes)
        with pytest.raises(KubeError, match="refused"):
            await anext(changes)
    assert flood.sent < 20 * 2**20


async def test_a_silent_server_is_an_error_after_the_timeout() -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async with connect(silent, timeout_seconds=0.2) as (cluster, _):
        with pytest.raises(KubeError, match="does not answer") as caught:
            await asyncio.wait_for(cluster.get(WITH_TOKEN, "finetunes", "a"), 3)
        assert caught.value.status == 0
        assert not await cluster.is_ready()


async def test_a_server_that_is_away_is_an_error_whose_message_and_log_have_no_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with KubeCluster(Server("http://127.0.0.1:9", None, None), "ml") as cluster:
            with pytest.raises(KubeError) as caught:
                await cluster.get(WITH_TOKEN, "finetunes", "a")
            assert not await cluster.is_ready()
    assert caught.value.status == 0
    assert "SECRET" not in str(caught.value) + caplog.text


async def test_a_status_becomes_an_error_with_its_reason_causes_and_wait() -> None:
    causes = [{"field": "spec.nEpochs", "message": "must be positive"}, "garbage", {"field": 7}]
    answer = refuse(422, "Invalid", details={"causes": causes, "retryAfterSeconds": 7})
    async with connect(answer) as (cluster, _):
        with pytest.raises(KubeError) as caught:
            await cluster.create(WITH_TOKEN, "finetunes", {})
    error = caught.value
    assert (error.status, error.reason, error.retry_after) == (422, "Invalid", 7)
    assert error.causes == (("spec.nEpochs", "must be positive"), ("", ""))
    assert error.message == "refused: Invalid"


async def test_a_server_with_too_many_requests_is_asked_again() -> None:
    busy = reply({"kind": "Status", "code": 429, "message": "busy"}, 429, **{"Retry-After": "0"})
    async with connect(busy, busy, reply(an_object(1))) as (cluster, server):
        assert (await cluster.create(WITH_TOKEN, "finetunes", {}))["metadata"]["name"] == "a"
        assert len(server.requests) == 3


async def test_a_server_that_stays_busy_is_an_error_within_the_time_of_a_request() -> None:
    async with connect(refuse(429), timeout_seconds=1.5) as (cluster, server):
        with pytest.raises(KubeError) as caught:
            await asyncio.wait_for(cluster.get(WITH_TOKEN, "finetunes", "a"), 4)
        assert caught.value.status == 429
        assert len(server.requests) == 2


async def test_an_error_of_another_server_keeps_its_status_but_not_its_text() -> None:
    async with connect(reply(b"<html>secret page", 502, **{"Retry-After": "9"})) as (cluster, _):
        with pytest.raises(KubeError) as caught:
            await cluster.get(WITH_TOKEN, "finetunes", "a")
    assert (caught.value.status, caught.value.retry_after) == (502, 9)
    assert "secret" not in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["kind", "message", "reason", "details", "causes", "field", "retryAfterSeconds"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([400, 403, 500]))
def test_every_body_of_an_error_becomes_an_error(body: Any, status: int) -> None:
    if isinstance(body, dict):
        body["kind"] = "Status"
    error = error_of(body, status)
    assert error.status == status
    assert isinstance(error.message, str)
    assert error.message
    assert error.retry_after is None or error.retry_after <= 60


async def test_a_list_has_the_objects_of_all_pages() -> None:
    pages = (a_list(5, an_object(1), token="next"), a_list(5, an_object(2), an_object(3)))
    async with connect(*pages) as (cluster, server):
        found = await cluster.list(WITH_TOKEN, "finetunes", label_selector="a=b")
    assert [item["metadata"]["resourceVersion"] for item in found] == ["1", "2", "3"]
    assert [request.query.get("continue") for request in server.requests] == [None, "next"]
    assert {request.query["labelSelector"] for request in server.requests} == {"a=b"}
    assert server.requests[0].path == "/apis/finetune.dev/v1alpha1/namespaces/ml/finetunes"


async def test_a_list_of_metadata_asks_for_nothing_else() -> None:
    pages = (a_list(5, an_object(1), token="next"), a_list(5, an_object(2)))
    async with connect(*pages) as (cluster, server):
        found = await cluster.list_metadata(WITH_TOKEN, "finetunes")
    assert [item["metadata"]["resourceVersion"] for item in found] == ["1", "2"]
    assert [request.headers["Accept"] for request in server.requests] == [
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    ] * 2


async def test_a_list_of_metadata_may_have_null_in_place_of_objects() -> None:
    empty = {"kind": "PartialObjectMetadataList", "metadata": {"resourceVersion": "5"}}
    async with connect(reply(empty | {"items": None})) as (cluster, _):
        assert await cluster.list_metadata(WITH_TOKEN, "finetunes") == []


async def test_a_list_without_an_end_is_an_error() -> None:
    async with connect(a_list(5, an_object(1), token="next")) as (cluster, server):
        with pytest.raises(KubeError, match="more than 10,000 finetunes"):
            await cluster.list(WITH_TOKEN, "finetunes")
        assert len(server.requests) == 40


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../models/a", "a/b", "a%2Fb", "a?watch=1", "A", "a\n", "ä", "a" * 254, "-a"],
)
async def test_a_text_that_is_no_name_never_reaches_the_server(name: str) -> None:
    async with connect(reply({})) as (cluster, server):
        with pytest.raises(KubeError) as caught:
            await cluster.get(WITH_TOKEN, "finetunes", name)
        assert caught.value.status == 404
        with pytest.raises(KubeError):
            await cluster.delete(WITH_TOKEN, "models", name)
        with pytest.raises(KubeError):
            await anext(cluster.follow(WITH_TOKEN, "finetunes", name))
        assert server.requests == []


@pytest.mark.parametrize("namespace", ["", "..", "a/b", "A", "a.b", "a" * 64])
def test_a_text_that_is_no_namespace_is_refused(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        KubeCluster(Server("http://127.0.0.1:9", None, None), namespace)


async def test_an_object_that_is_too_large_is_not_sent() -> None:
    async with connect(reply({})) as (cluster, server):
        with pytest.raises(KubeError) as caught:
            await cluster.create(WITH_TOKEN, "finetunes", {"x": "a" * (api_session.BODY_BYTES + 1)})
        assert caught.value.status == 413
        assert server.requests == []


async def test_writes_have_the_form_that_the_api_server_checks_strictly() -> None:
    bodies = []

    async def note(request: web.Request) -> web.StreamResponse:
        bodies.append(json.loads(await request.read() or b"null"))
        return web.json_response(an_object(1))

    async with connect(note) as (cluster, server):
        await cluster.create(WITH_TOKEN, "finetunes", {"kind": "FineTune"})
        await cluster.patch(WITH_TOKEN, "finetunes", "a", {"spec": {"cancel": True}})
        await cluster.delete(WITH_TOKEN, "models", "a.b")
    create, patch, delete = server.requests
    assert (create.method, create.query["fieldValidation"]) == ("POST", "Strict")
    assert (patch.method, patch.content_type) == ("PATCH", "application/merge-patch+json")
    assert patch.query["fieldValidation"] == "Strict"
    assert (delete.method, delete.path.rsplit("/", 2)[1:]) == ("DELETE", ["models", "a.b"])
    assert bodies == [{"kind": "FineTune"}, {"spec": {"cancel": True}}, None]


async def test_a_right_is_asked_once_and_remembered_for_its_caller_only() -> None:
    review = {"kind": "SelfSubjectAccessReview", "status": {"allowed": True}}
    async with connect(reply(review), token=OwnToken("own")) as (cluster, server):
        assert await cluster.may(WITH_TOKEN, "create", "finetunes")
        assert await cluster.may(WITH_TOKEN, "create", "finetunes")
        assert len(server.requests) == 1
        assert await cluster.may(WITH_TOKEN, "delete", "finetunes")
        assert await cluster.may(WITH_KEY, "create", "finetunes")
        assert len(server.requests) == 3


@pytest.mark.parametrize("status", [None, [], {}, {"allowed": "true"}, {"allowed": 1}])
async def test_only_a_clear_yes_is_a_right(status: Any) -> None:
    async with connect(reply({"status": status})) as (cluster, _):
        assert not await cluster.may(WITH_TOKEN, "create", "finetunes")


async def test_an_error_is_not_remembered_as_an_answer() -> None:
    answers = (refuse(503), reply({"status": {"allowed": True}}))
    async with connect(*answers) as (cluster, _):
        with pytest.raises(KubeError):
            await cluster.may(WITH_TOKEN, "create", "finetunes")
        assert await cluster.may(WITH_TOKEN, "create", "finetunes")


def test_a_right_is_forgotten_in_time_and_the_memory_is_bounded() -> None:
    now = 0.0
    rights = Rights(10, lambda: now)
    rights.remember(("a", "get", "models"), True)
    now = 9.9
    assert rights.find(("a", "get", "models")) is True
    now = 10.0
    assert rights.find(("a", "get", "models")) is None
    for number in range(MOST_ANSWERS + 100):
        rights.remember((str(number), "get", "models"), False)
    assert len(rights) == MOST_ANSWERS
    now = 30.0
    rights.remember(("b", "get", "models"), False)
    assert len(rights) == 1


def test_rights_with_no_memory_are_asked_each_time() -> None:
    rights = Rights(0, lambda: 0.0)
    rights.remember(("a", "get", "models"), True)
    assert rights.find(("a", "get", "models")) is None


async def test_the_server_is_ready_if_it_answers_anything_but_its_own_error() -> None:
    for status, is_ready in ((200, True), (401, True), (403, True), (500, False), (503, False)):
        async with connect(reply({}, status)) as (cluster, _):
            assert await cluster.is_ready() is is_ready
