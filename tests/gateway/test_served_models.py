"""Models that the operator serves: requests wake them, and wait until they are ready."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from finetune_api.model_names import resource_name
from finetune_gateway.backends.renewals import Renewals
from finetune_gateway.kube_errors import KubeError
from tests.gateway.completion_gateway import TONE, gateway, own_address
from tests.gateway.completion_server import CompletionServer, serving, until
from tests.gateway.served_gateway import (
    BODY,
    HOST,
    LEASE,
    STREAM,
    Operator,
    Service,
    error_in,
    refusal,
    serve,
    served_gateway,
    status,
    without_pods,
)

pytestmark = pytest.mark.slow

FORBIDDEN = KubeError(403, "no right", reason="Forbidden")
MISSING = KubeError(404, "no such Lease", reason="NotFound")


async def test_twenty_requests_wake_a_model_once_and_all_of_them_are_answered() -> None:
    server, operator, service = CompletionServer(models={TONE}), Operator(), await without_pods()
    async with served_gateway(operator, service, status("asleep"), holdSeconds=60) as it:
        asked = [asyncio.ensure_future(it.post("completions", BODY)) for _ in range(20)]
        await operator.woken.wait()
        assert not any(one.done() for one in asked)
        async with serving(server.app(), own_address(), service.port):
            answers = await asyncio.gather(*asked)
    assert [(code, found["choices"][0]["text"]) for code, found in answers] == [(200, "b a")] * 20
    assert len(server.bodies) == 20
    assert operator.renewals == [LEASE]
    assert (set(service.resolutions), service.ports) == ({HOST}, {8000})


async def test_a_waiting_request_renews_more_often_until_the_server_answers() -> None:
    server, operator, service = CompletionServer(models={TONE}), Operator(), await without_pods()
    renewals = Renewals(3600, 0.01)
    async with served_gateway(
        operator, service, status("asleep"), renewals=renewals, holdSeconds=60
    ) as it:
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await until(lambda: len(operator.renewals) >= 2)
        async with serving(server.app(), own_address(), service.port):
            assert (await asked)[0] == 200
            ready = len(operator.renewals)
            assert (await it.post("completions", BODY))[0] == 200
    assert len(operator.renewals) == ready


async def test_a_stream_wakes_a_model_and_is_answered() -> None:
    server, operator, service = CompletionServer(models={TONE}), Operator(), await without_pods()
    async with served_gateway(operator, service, status("asleep"), holdSeconds=0) as it:
        asked = asyncio.ensure_future(it.events("completions", STREAM))
        await operator.woken.wait()
        async with serving(server.app(), own_address(), service.port):
            lines = await asked
    assert (lines[0], lines[-1]) == (": loading", "data: [DONE]")
    assert operator.renewals == [LEASE]


async def test_a_long_stream_keeps_its_model_awake_until_its_end() -> None:
    operator, address = Operator(), own_address()

    async def override(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"model":"x","choices":[{"text":"a"}]}\n\n')
        begun = len(operator.renewals)
        await until(lambda: len(operator.renewals) >= begun + 3)
        await response.write(b"data: [DONE]\n\n")
        return response

    server = CompletionServer(override=override)
    renewals = Renewals(0.05, 0.05)
    async with serving(server.app(), address) as port:
        service = Service({HOST: [address]}, port)
        async with served_gateway(operator, service, status("ready"), renewals=renewals) as it:
            lines = await it.events("completions", STREAM)
            assert lines[-1] == "data: [DONE]"
            await until(lambda: renewals.seconds_to_next(0) is None)
    assert set(operator.renewals) == {LEASE}


async def test_a_long_answer_keeps_its_model_awake_until_its_end() -> None:
    operator, address = Operator(), own_address()

    async def override(_: web.Request) -> web.StreamResponse:
        begun = len(operator.renewals)
        await until(lambda: len(operator.renewals) >= begun + 3)
        return web.json_response({"model": "x", "choices": []})

    server = CompletionServer(override=override)
    renewals = Renewals(0.05, 0.05)
    async with serving(server.app(), address) as port:
        service = Service({HOST: [address]}, port)
        async with served_gateway(operator, service, status("ready"), renewals=renewals) as it:
            assert (await it.post("completions", BODY))[0] == 200
            await until(lambda: renewals.seconds_to_next(0) is None)


async def test_a_client_that_leaves_does_not_keep_the_model_awake() -> None:
    operator, renewals = Operator(), Renewals(3600, 3600)
    async with served_gateway(
        operator, await without_pods(), status("asleep"), renewals=renewals, holdSeconds=60
    ) as it:
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await operator.woken.wait()
        assert renewals.seconds_to_next(0) is not None
        asked.cancel()
        await until(lambda: renewals.seconds_to_next(0) is None)


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_the_end_of_the_gateway_ends_the_renewals(body: Any) -> None:
    operator = Operator()
    async with served_gateway(
        operator, await without_pods(), status("asleep"), holdSeconds=60
    ) as it:
        asked = asyncio.ensure_future(
            it.client.post(f"{it.url}/completions", json=body, headers=it.headers)
        )
        await operator.woken.wait()
        it.shut_down()
        async with await asked as response:
            assert "The gateway restarts" in await response.text()
    names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    assert not [name for name in names if "Waking" in name]


@pytest.mark.parametrize(
    "failure",
    [
        FORBIDDEN,
        MISSING,
        KubeError(409, "conflict", reason="Conflict"),
        KubeError(0, "The API server does not answer."),
    ],
    ids=["forbidden", "missing", "conflict", "silent"],
)
async def test_a_renewal_that_fails_is_no_failure_of_the_request(failure: KubeError) -> None:
    server, operator, address = CompletionServer(models={TONE}), Operator(failure), own_address()
    async with serving(server.app(), address) as port:
        service = Service({HOST: [address]}, port)
        async with served_gateway(operator, service, status("ready")) as it:
            assert (await it.post("completions", BODY))[0] == 200
            lines = await it.events("completions", STREAM)
            assert lines[-1] == "data: [DONE]"
            await until(lambda: operator.renewals == [LEASE])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (None, None),
        (FORBIDDEN, f"the gateway may not patch the Lease {LEASE}"),
        (MISSING, f"the operator has not created the Lease {LEASE}"),
        (KubeError(409, "conflict", reason="Conflict"), None),
    ],
    ids=["renewed", "forbidden", "missing", "conflict"],
)
async def test_a_model_that_does_not_wake_in_time_is_a_409_which_names_the_obstacle(
    failure: KubeError | None, said: str | None
) -> None:
    operator = Operator(failure)
    async with served_gateway(operator, await without_pods(), status("loading")) as it:
        code, error, headers = await refusal(it)
    assert (code, error["code"], headers["Retry-After"]) == (409, "model_loading", "5")
    assert "accepts no connection" in error["message"]
    assert ("Lease" in error["message"]) is (said is not None)
    assert (said or "") in error["message"]
    assert set(operator.renewals) == {LEASE}


@pytest.mark.parametrize("found", [None, status("asleep")], ids=["no status", "asleep"])
async def test_a_service_that_is_not_created_yet_is_a_model_that_loads(
    found: dict[str, Any] | None,
) -> None:
    operator = Operator(MISSING)
    options = {"stream_hold_seconds": 0.5}
    async with served_gateway(operator, Service({}), found, holdSeconds=0.5, options=options) as it:
        code, error, headers = await refusal(it)
        assert (code, error["code"], headers["Retry-After"]) == (409, "model_loading", "5")
        assert "has no address" in error["message"]
        error = error_in(await it.events("completions", STREAM))
        assert error["code"] == "model_loading"


async def test_a_service_that_is_created_in_time_answers() -> None:
    server, operator, service = CompletionServer(models={TONE}), Operator(), Service({})
    address = own_address()
    async with (
        serving(server.app(), address) as service.port,
        served_gateway(operator, service, holdSeconds=60) as it,
    ):
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await until(lambda: HOST in service.resolutions)
        service.addresses[HOST] = [address]
        assert (await asked)[0] == 200


async def test_a_request_that_the_server_does_not_support_wakes_nothing() -> None:
    operator, renewals = Operator(), Renewals(3600, 3600)
    async with served_gateway(
        operator, await without_pods(), status("asleep", engine="vllm"), renewals=renewals
    ) as it:
        code, error, _ = await refusal(it, BODY | {"best_of": 3})
        assert (code, error["param"]) == (400, "best_of")
        assert (await refusal(it, BODY | {"temprature": 1}))[0] == 400
    assert (operator.renewals, renewals.known) == ([], 0)


async def test_who_may_not_read_the_model_wakes_nothing() -> None:
    operator = Operator()
    async with served_gateway(operator, await without_pods(), status("asleep")) as it:
        it.cluster.refuse("get", "models")
        assert (await refusal(it))[0] == 403
    assert operator.renewals == []


async def test_the_address_of_the_operators_service_is_checked_like_any_other() -> None:
    operator = Operator()
    async with served_gateway(operator, Service({HOST: ["127.0.0.1"]}, 80)) as it:
        code, error, _ = await refusal(it)
    assert (code, error["code"]) == (503, "model_not_served")
    assert "a loopback address" in error["message"]


async def test_a_server_that_is_not_of_the_operator_is_never_woken() -> None:
    server, operator = CompletionServer(models={TONE, "curie"}), Operator()
    async with serving(server.app()) as port:
        backend = {"base": "curie", "url": f"http://127.0.0.1:{port}/v1"}
        async with served_gateway(operator, Service({}), backends=[backend]) as it:
            del it.cluster.objects["models"][resource_name(TONE)]["spec"]["serve"]
            assert (await it.post("completions", BODY))[0] == 200
            assert (await it.post("completions", BODY | {"model": "curie"}))[0] == 200
    assert operator.renewals == []


async def test_a_gateway_whose_operator_serves_nothing_ignores_the_field() -> None:
    service = await without_pods()
    async with gateway(resolver=service) as it:
        serve(it, status("ready"))
        code, error, headers = await refusal(it)
    assert (code, error["code"], headers["x-should-retry"]) == (503, "model_not_served", "false")
    assert "spec.serve needs the chart value serving.enabled" in error["message"]
    assert service.resolutions == []
