"""The background task that renews Leases: one for all models, whatever fails, until the end."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack

import pytest

from finetune_gateway.backends.renewals import Renewals
from finetune_gateway.backends.waking import Waking
from finetune_gateway.kube_errors import KubeError
from tests.gateway.completion_server import until


class Leases:
    """What the API server does with renewals."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.renewals: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def renew(self, lease: str) -> None:
        self.renewals.append(lease)
        await self.answers.wait()
        if self.failure is not None:
            raise self.failure


def tasks() -> list[asyncio.Task[object]]:
    """The tasks of `Waking` in this event loop."""
    found = asyncio.all_tasks()
    return [task for task in found if "Waking" in getattr(task.get_coro(), "__qualname__", "")]


async def test_all_requests_have_one_task_which_ends_with_the_gateway() -> None:
    leases = Leases()
    waking = Waking(leases.renew)
    assert tasks() == []  # nothing runs before a model needs it
    with ExitStack() as stack:
        for name in ["a"] * 20 + ["b"] * 20:
            stack.enter_context(waking.in_use(name))
            waking.want(name)
        assert len(tasks()) == 1
        await until(lambda: len(leases.renewals) >= 2)
        await waking.close()
        assert tasks() == []
        waking.want("a", is_ready=False)  # of a request that still waits
        assert tasks() == []
    assert sorted(leases.renewals) == ["a", "b"]


async def test_a_renewal_without_an_answer_does_not_keep_the_gateway() -> None:
    leases = Leases()
    leases.answers.clear()
    waking = Waking(leases.renew)
    with waking.in_use("a"):
        waking.want("a")
        await until(lambda: leases.renewals == ["a"])
        await waking.close()
    assert tasks() == []


async def test_a_gateway_that_has_ended_begins_no_task() -> None:
    leases = Leases()
    waking = Waking(leases.renew)
    await waking.close()
    with waking.in_use("a"):
        waking.want("a")
        assert tasks() == []


async def test_a_lease_is_renewed_as_long_as_a_request_is_in_flight() -> None:
    leases, renewals = Leases(), Renewals(0.02, 0.02)
    waking = Waking(leases.renew, renewals)
    with waking.in_use("a"), waking.in_use("idle"):
        waking.want("a")
        await until(lambda: len(leases.renewals) >= 4)
    ended = len(leases.renewals)
    assert renewals.seconds_to_next(0) is None
    await asyncio.sleep(0.2)
    assert len(leases.renewals) <= ended + 1  # one that was under way
    assert set(leases.renewals) == {"a"}
    await waking.close()


async def test_a_request_that_comes_while_the_task_sleeps_is_renewed_in_time() -> None:
    leases = Leases()
    leases.answers.clear()
    waking = Waking(leases.renew, Renewals(1, 1))
    with waking.in_use("a"):
        waking.want("a")
        await until(lambda: len(leases.renewals) >= 1)
    leases.answers.set()
    await asyncio.sleep(0.1)  # no request is in flight, so that the task sleeps without an end
    with waking.in_use("a"):
        waking.want("a")
        await until(lambda: len(leases.renewals) >= 2)
    await waking.close()


async def test_a_model_is_renewed_soon_while_its_server_is_not_ready() -> None:
    leases = Leases()
    waking = Waking(leases.renew, Renewals(3600, 0))
    with waking.in_use("a"):
        waking.want("a")
        await until(lambda: len(leases.renewals) == 1)
        waking.want("a")
        waking.want("a", is_ready=False)
        await until(lambda: len(leases.renewals) == 2)
    await waking.close()


@pytest.mark.parametrize(
    ("failure", "obstacle"),
    [
        (KubeError(403, "no right", reason="Forbidden"), "may not patch the Lease a,"),
        (KubeError(404, "no such", reason="NotFound"), "has not created the Lease a,"),
        (KubeError(409, "conflict", reason="Conflict"), ""),
        (KubeError(0, "The API server does not answer (TimeoutError)."), ""),
        (RuntimeError("a bug"), ""),
    ],
    ids=["forbidden", "missing", "conflict", "silent", "bug"],
)
async def test_the_task_survives_each_failure_which_is_known_until_it_ends(
    failure: Exception, obstacle: str
) -> None:
    leases = Leases(failure)
    waking = Waking(leases.renew, Renewals(0.02, 0.02))
    with waking.in_use("a"):
        assert waking.obstacle("a") == ""
        waking.want("a")
        await until(lambda: len(leases.renewals) >= 3)
        assert (obstacle in waking.obstacle("a")) and bool(obstacle) == bool(waking.obstacle("a"))
        leases.failure = None
        await until(lambda: waking.obstacle("a") == "")
        failed = len(leases.renewals)
        await until(lambda: len(leases.renewals) > failed)
    await waking.close()


async def test_a_cause_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "finetune_gateway.backends.waking")
    leases = Leases(KubeError(403, "no right", reason="Forbidden"))
    waking = Waking(leases.renew, Renewals(0.01, 0.01))
    with waking.in_use("a"), waking.in_use("b"):
        waking.want("a")
        waking.want("b")
        await until(lambda: len(leases.renewals) >= 10)
        leases.failure = KubeError(0, "The API server does not answer.")
        ended = len(leases.renewals)
        await until(lambda: len(leases.renewals) >= ended + 6)
    await waking.close()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the Lease a was not renewed: 403: no right",
        "the Lease a was not renewed: The API server does not answer.",
    ]
