"""The answer of a pod about its progress is read whole, within bounds, and never trusted."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from finetune_api.outcome import Outcome, ProgressReport
from finetune_operator.core.observed import Job
from finetune_operator.kube.progress import BYTES_AT_MOST, SLOW_SECONDS, ProgressReader
from tests.support.objects import World, progress, trained

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RankZero:
    """A server on an address of its own that answers as the test sets it."""

    def __init__(self) -> None:
        self.answer: Answer = send(progress())
        self.asked: list[str] = []
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.answer(request)

    async def read(self, ip: str = "127.0.0.1") -> ProgressReport | None:
        async with ProgressReader(self.port) as reader:
            return await reader.read(a_job(ip))


def a_job(ip: str = "127.0.0.1") -> Job:
    world = World().until_running()
    pods = world.pods[world.job("a1")]
    pods[0]["status"]["podIP"] = ip
    return Job.parse(world.jobs[world.job("a1")], pods)


def send(report: ProgressReport, status: int = 200) -> Answer:
    return send_bytes(report.to_json().encode(), status)


def send_bytes(body: bytes, status: int = 200, size: int = 1448, **headers: str) -> Answer:
    """Send the body in segments, each of which arrives on its own."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        for start in range(0, len(body), size):
            await response.write(body[start : start + size])
            await asyncio.sleep(0.001)
        return response

    return answer


def send_fields(**fields: Any) -> Answer:
    return send_bytes(json.dumps(progress().to_dict() | fields).encode())


@pytest.fixture
async def rank0() -> AsyncIterator[RankZero]:
    made = RankZero()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def many_epochs(count: int) -> ProgressReport:
    epochs = [
        {"epoch": n, "step": n, "trainingLoss": 1.23456789, "validationLoss": 1.23456789}
        for n in range(1, count + 1)
    ]
    return progress(completedEpochs=epochs)


async def test_an_answer_in_several_segments_is_read_to_its_end(rank0: RankZero) -> None:
    report = many_epochs(50)
    assert len(report.to_json()) > 2 * 1448
    rank0.answer = send(report)
    assert await rank0.read() == report


@pytest.mark.parametrize("status", [200, 503])
async def test_a_training_and_a_starting_pod_are_read(rank0: RankZero, status: int) -> None:
    rank0.answer = send(progress(), status)
    assert await rank0.read() == progress()


@pytest.mark.parametrize("status", [201, 204, 404, 500])
async def test_other_answers_are_not_read(rank0: RankZero, status: int) -> None:
    rank0.answer = send(progress(), status)
    assert await rank0.read() is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(rank0: RankZero, status: int) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        if request.path == "/elsewhere":
            return web.Response(body=progress().to_json())
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    rank0.answer = redirect
    assert await rank0.read() is None
    assert rank0.asked == ["/progress"]


async def test_an_answer_above_the_cap_is_refused_before_its_end(rank0: RankZero) -> None:
    at_the_cap = progress().to_json().encode().ljust(BYTES_AT_MOST)
    rank0.answer = send_bytes(at_the_cap, size=16_384)
    assert await rank0.read() == progress()
    rank0.answer = send_bytes(at_the_cap + b" ", size=16_384)
    assert await rank0.read() is None

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65_536)

    rank0.answer = endless
    assert await rank0.read() is None


async def test_a_compressed_answer_is_not_expanded(rank0: RankZero) -> None:
    body = gzip.compress(progress().to_json().encode())
    rank0.answer = send_bytes(body, **{"Content-Encoding": "gzip"})
    assert await rank0.read() is None


async def test_a_slow_pod_is_not_asked_at_every_reconcile(rank0: RankZero) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.02)

    now = 0.0
    rank0.answer = drip
    async with ProgressReader(rank0.port, timeout=0.1, clock=lambda: now) as reader:
        assert await reader.read(a_job()) is None
        rank0.answer = send(progress())
        assert await reader.read(a_job()) is None
        now = SLOW_SECONDS
        assert await reader.read(a_job()) == progress()
    assert len(rank0.asked) == 2


async def test_all_pods_are_read_through_one_session(rank0: RankZero) -> None:
    connections: set[int] = set()

    async def note(request: web.Request) -> web.StreamResponse:
        connections.add(id(request.transport))
        return web.Response(body=progress().to_json())

    rank0.answer = note
    async with ProgressReader(rank0.port) as reader:
        for _ in range(3):
            assert await reader.read(a_job()) == progress()
    assert len(connections) == 1


@pytest.mark.parametrize(
    "ip", ["", "metadata.internal", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0", "1/2#"]
)
async def test_only_an_address_of_a_pod_is_asked(rank0: RankZero, ip: str) -> None:
    assert await rank0.read(ip) is None
    assert rank0.asked == []


async def test_a_report_of_another_attempt_is_not_used(rank0: RankZero) -> None:
    rank0.answer = send(progress(attempt=2))
    assert await rank0.read() is None


BAD: dict[str, dict[str, Any]] = {
    "a finish beyond the calendar": {"secondsLeft": 1e300},
    "a finish in the past": {"secondsLeft": -1},
    "a step beyond 64 bits": {"step": 10**30},
    "a step that no float holds": {"step": 10**400},
    "a negative step": {"step": -1},
    "steps beyond 64 bits": {"steps": 2**63},
    "an epoch beyond reason": {"epoch": 1e300},
    "a negative epoch": {"epoch": -0.5},
    "negative tokens": {"trainedTokens": -1},
    "an attempt of another type": {"attempt": "1; drop"},
    "a checkpoint beyond 64 bits": {"checkpointStep": 2**64},
    "an age beyond the calendar": {"lastStepAge": 1e300},
    "an age that is no number": {"lastStepAge": float("nan")},
    "an epoch of many digits": {"completedEpochs": [{"epoch": 10**400, "step": 1}]},
    "a negative epoch number": {"completedEpochs": [{"epoch": -1, "step": 1}]},
    "too many epochs": {"completedEpochs": [{"epoch": 1, "step": 1}] * 1001},
    "a stage of its own": {"stage": "done"},
    "a field of its own": {"owner": "me"},
}


@pytest.mark.parametrize("fields", BAD.values(), ids=BAD)
async def test_a_report_out_of_bounds_is_not_used(rank0: RankZero, fields: dict[str, Any]) -> None:
    rank0.answer = send_fields(**fields)
    assert await rank0.read() is None


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"\xff\xfe", b"[" * 60_000, b'{"a":' * 10_000, b'{"stage": "\\ud800"}'],
)
async def test_what_is_no_report_is_not_used(rank0: RankZero, body: bytes) -> None:
    rank0.answer = send_bytes(body)
    assert await rank0.read() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300, -1e300, 0, None])
async def test_a_report_with_any_metric_can_be_decided_on_and_written(
    rank0: RankZero, value: float | None
) -> None:
    """A diverged training has such values."""
    names = ("trainingLoss", "validationLoss", "learningRate", "tokensPerSecond")
    names += ("validationSequenceAccuracy", "validationTokenAccuracy")
    metrics = dict.fromkeys(names, value)
    epoch = {"epoch": 1, "step": 10, **dict.fromkeys(names[:2], value)}
    rank0.answer = send_fields(
        **metrics, completedEpochs=[epoch], before=epoch, secondsLeft=1e10, step=10**15, steps=1
    )
    report = await rank0.read()
    assert report is not None
    world = World().until_running()
    world.progress = report
    world.settle()
    written = world.status.to_dict()
    json.dumps(written, allow_nan=False)
    assert written["progress"]["percent"] == "100 %"
    assert written["progress"]["eta"] > "2300"


async def test_epochs_that_the_run_does_not_have_make_no_events(rank0: RankZero) -> None:
    epochs = [{"epoch": number, "step": 1} for number in range(1, 900)]
    rank0.answer = send_fields(completedEpochs=epochs, epochs=900)
    world = World().until_running()
    world.progress = await rank0.read()
    assert world.progress is not None
    world.settle()
    assert len([event for event in world.status.events if event.reason == "EpochCompleted"]) == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the machine has no IPv6")
async def test_a_pod_with_an_ipv6_address_is_read_without_the_proxy_of_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=progress().to_json())

    app = web.Application()
    app.router.add_get("/progress", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "::1", 0).start()
    async with ProgressReader(runner.addresses[0][1]) as reader:
        assert await reader.read(a_job("::1")) == progress()
    await runner.cleanup()


@pytest.mark.parametrize(
    "text",
    [
        "[" * 4000,
        '{"kind": "outcome", "resumedFromStep": 1' + "0" * 400 + "}",
        '{"kind": "outcome", "failure": {"code": "\\ud800", "message": "m"}}',
    ],
)
def test_a_termination_message_out_of_bounds_is_no_outcome(text: str) -> None:
    assert Outcome.parse(text) is None


@pytest.mark.parametrize("field", ["trainedTokens", "steps"])
@pytest.mark.parametrize("value", [-1, 10**30, 10**400])
def test_a_result_with_an_impossible_count_is_no_outcome(field: str, value: int) -> None:
    message = json.loads(trained().to_termination_message())
    message["trained"][field] = value
    assert Outcome.parse(json.dumps(message)) is None


def test_the_result_of_a_training_that_diverged_to_no_number_is_read() -> None:
    result = trained().trained
    assert result is not None
    message = Outcome(trained=result.replace(training_loss=float("nan"))).to_termination_message()
    found = Outcome.parse(message)
    assert found is not None and found.trained is not None
    assert found.trained.training_loss is None
