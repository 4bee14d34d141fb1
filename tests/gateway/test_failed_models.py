"""A model whose pods do not start: the cause is the answer, after a short wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from finetune_api.model_names import resource_name
from finetune_gateway.backends import holding
from finetune_gateway.kube_errors import KubeError
from tests.gateway.completion_gateway import TONE, own_address
from tests.gateway.completion_server import CompletionServer, serving, until
from tests.gateway.served_gateway import (
    BODY,
    BROKEN,
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


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("The image does not exist.", f"'{TONE}': The image does not exist."),
        ("", f"'{TONE}': its pods do not start."),
        ("a\r\nb\x1b[31m", f"'{TONE}': a b\\x1b[31m."),
        ("x" * 4096, "x" * 1000 + "."),
    ],
    ids=["sentence", "empty", "control characters", "long"],
)
async def test_a_model_whose_pods_do_not_start_is_a_503_with_the_cause(
    message: str, said: str
) -> None:
    operator = Operator()
    found = status("failed", message=message)
    async with served_gateway(operator, await without_pods(), found, holdSeconds=0.3) as it:
        code, error, headers = await refusal(it)
    assert (code, error["code"]) == (503, "model_not_served")
    assert headers["x-should-retry"] == "false"
    assert "Retry-After" not in headers
    assert said in error["message"]
    assert len(error["message"]) < 1200
    assert operator.renewals == [LEASE]  # so that the operator keeps trying


async def test_a_failed_model_is_held_for_a_short_time_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert holding.FAILED_HOLD_SECONDS == 5
    monkeypatch.setattr(holding, "FAILED_HOLD_SECONDS", 0.3)
    operator = Operator()
    async with served_gateway(operator, await without_pods(), BROKEN, holdSeconds=3600) as it:
        async with asyncio.timeout(60):  # far below the hour
            code, error, _ = await refusal(it)
            assert (code, error["code"]) == (503, "model_not_served")
            error = error_in(await it.events("completions", STREAM))
    assert error["code"] == "model_not_served"
    assert "the image does not exist" in error["message"]


async def test_the_state_at_the_end_of_the_time_is_read_again_as_the_caller() -> None:
    operator = Operator()
    async with served_gateway(operator, await without_pods(), status("loading")) as it:
        asked = asyncio.ensure_future(refusal(it))
        await operator.woken.wait()
        serve(it, BROKEN)
        code, error, _ = await asked
        assert (code, error["code"]) == (503, "model_not_served")
        assert it.cluster.requests == [("get", "models")] * 2
        assert [caller.account for caller in it.cluster.callers] == ["anna", "anna"]
        # What was read is remembered, so that the next request has the short time at once.
        assert (await refusal(it))[0] == 503
        assert it.cluster.requests == [("get", "models")] * 3


async def test_a_model_that_no_longer_fails_is_held_as_long_as_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "FAILED_HOLD_SECONDS", 0.3)
    server, operator, service = CompletionServer(models={TONE}), Operator(), await without_pods()
    async with served_gateway(operator, service, BROKEN, holdSeconds=60) as it:
        asked = asyncio.ensure_future(it.post("completions", BODY))
        await operator.woken.wait()
        serve(it, status("loading"))
        await until(lambda: len(it.cluster.requests) == 2)
        async with serving(server.app(), own_address(), service.port):
            assert (await asked)[0] == 200


async def test_a_stream_that_waits_hears_of_a_failure_before_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert holding.REVIEW_SECONDS == 30
    monkeypatch.setattr(holding, "REVIEW_SECONDS", 0.3)
    operator = Operator()
    async with served_gateway(operator, await without_pods(), status("loading")) as it:
        asked = asyncio.ensure_future(it.events("completions", STREAM))
        await until(lambda: len(it.cluster.requests) == 3)  # it still loads
        serve(it, BROKEN)
        async with asyncio.timeout(60):  # far below the ten minutes of a stream
            error = error_in(await asked)
    assert error["code"] == "model_not_served"
    assert "the image does not exist" in error["message"]


async def test_a_failed_model_that_answers_is_no_failure() -> None:
    server, operator, address = CompletionServer(models={TONE}), Operator(), own_address()
    async with serving(server.app(), address) as port:
        service = Service({HOST: [address]}, port)
        async with served_gateway(operator, service, BROKEN) as it:
            assert (await it.post("completions", BODY))[0] == 200


@pytest.mark.parametrize(
    ("found", "expected"),
    [(status("loading"), (409, "model_loading")), (BROKEN, (503, "model_not_served"))],
    ids=["loading", "failed"],
)
@pytest.mark.parametrize("is_slow", [False, True], ids=["away", "slow"])
async def test_without_an_answer_of_the_api_server_the_remembered_state_counts(
    monkeypatch: pytest.MonkeyPatch, found: Any, expected: Any, is_slow: bool
) -> None:
    monkeypatch.setattr(holding, "READ_SECONDS", 0.1)
    operator = Operator()
    async with served_gateway(operator, await without_pods(), found) as it:
        asked = asyncio.ensure_future(refusal(it))
        await operator.woken.wait()
        if is_slow:
            monkeypatch.setattr(it.cluster, "get", lambda *_: asyncio.sleep(3600))
        else:
            it.cluster.refuse("get", "models", KubeError(0, "The API server does not answer."))
        code, error, _ = await asked
    assert (code, error["code"]) == expected


async def test_what_the_caller_may_not_read_any_more_is_refused_at_the_end() -> None:
    operator = Operator()
    async with served_gateway(operator, await without_pods(), BROKEN) as it:
        asked = asyncio.ensure_future(refusal(it))
        await operator.woken.wait()
        it.cluster.refuse("get", "models")
        code, error, _ = await asked
        assert (code, error["code"]) == (403, "permission_denied")
        it.cluster.refusals.clear()
        it.cluster.objects["models"].clear()
        code, error, _ = await refusal(it)  # its server is remembered
    assert (code, error["code"]) == (404, "model_not_found")


async def test_a_model_that_gets_another_server_in_the_meantime_is_requested_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holding, "FAILED_HOLD_SECONDS", 0.3)
    operator = Operator()
    async with served_gateway(operator, Service({}), BROKEN, holdSeconds=3600) as it:
        asked = asyncio.ensure_future(refusal(it))
        await operator.woken.wait()
        model = it.cluster.objects["models"][resource_name(TONE)]
        model["spec"]["serving"] = {"service": "own", "port": 80}
        async with asyncio.timeout(60):  # far below the hour: the request is for the other server
            code, error, _ = await asked
        assert (code, error["code"]) == (409, "model_loading")
