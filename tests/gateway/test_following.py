"""A FineTune and its changes, while the watches of it break."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from finetune_gateway.kube import following
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube_errors import KubeError
from tests.gateway.api_server import (
    Answer,
    ApiServer,
    a_list,
    a_watch,
    an_event,
    an_object,
    connect,
    refuse,
    reply,
)

CALLER = Caller({"Authorization": "Bearer a.b.c"})
EXPIRED: dict[str, Any] = {"type": "ERROR", "object": {"kind": "Status", "code": 410}}


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "BACKOFF_SECONDS", 0.01)


async def versions(*answers: Answer, most: int = 99) -> tuple[list[int | None], ApiServer]:
    """The versions of the objects that a follower gets, at most so many; None: deleted."""
    found: list[int | None] = []
    async with (
        asyncio.timeout(10),
        connect(*answers) as (cluster, server),
        aclosing(cluster.follow(CALLER, "finetunes", "a")) as changes,
    ):
        async for item in changes:
            found.append(item and int(item["metadata"]["resourceVersion"]))
            if len(found) == most:
                break
    return found, server


async def test_a_follower_gets_the_object_its_changes_and_its_end() -> None:
    watch = a_watch(an_event("MODIFIED", 2), an_event("MODIFIED", 3), an_event("DELETED", 4))
    found, server = await versions(a_list(1, an_object(1)), watch)
    assert found == [1, 2, 3, None]
    assert {r.query["fieldSelector"] for r in server.requests} == {"metadata.name=a"}
    assert server.requests[1].query["resourceVersion"] == "1"


@pytest.mark.parametrize("end", ["eof", "abort"])
async def test_a_watch_that_ends_continues_where_it_ended(end: str) -> None:
    first = a_watch(an_event("MODIFIED", 2), end=end)
    second = a_watch(an_event("MODIFIED", 3), an_event("DELETED", 4))
    found, server = await versions(a_list(1, an_object(1)), first, second)
    assert found == [1, 2, 3, None]
    assert [r.query.get("resourceVersion") for r in server.requests] == [None, "1", "2"]


async def test_a_bookmark_moves_the_watch_and_is_no_change() -> None:
    first = a_watch(an_event("BOOKMARK", 90))
    second = a_watch(an_event("DELETED", 91))
    found, server = await versions(a_list(1, an_object(1)), first, second)
    assert found == [1, None]
    assert server.requests[2].query["resourceVersion"] == "90"


@pytest.mark.parametrize("expired", [a_watch(EXPIRED), refuse(410, "Expired")])
async def test_an_expired_watch_starts_with_a_list_and_repeats_no_object(expired: Answer) -> None:
    found, server = await versions(
        a_list(1, an_object(1)),
        a_watch(an_event("MODIFIED", 2), end="eof"),
        expired,
        a_list(50, an_object(2)),
        expired,
        a_list(60, an_object(7)),
        a_watch(an_event("DELETED", 61)),
    )
    assert found == [1, 2, 7, None]
    assert [r.query.get("resourceVersion") for r in server.requests] == [
        None, "1", "2", None, "50", None, "60",
    ]  # fmt: skip


async def test_an_object_that_is_gone_after_an_expired_watch_was_deleted() -> None:
    answers = (a_list(1, an_object(1)), a_watch(EXPIRED), a_list(50))
    assert (await versions(*answers))[0] == [1, None]


@pytest.mark.parametrize(
    "news",
    [
        (a_watch(an_event("ADDED", 9, "uid-2")),),
        (a_watch(an_event("MODIFIED", 9, "uid-2")),),
        (a_watch(EXPIRED), a_list(50, an_object(9, "uid-2"))),
    ],
)
async def test_an_object_that_was_created_again_is_another_one(news: tuple[Answer, ...]) -> None:
    assert (await versions(a_list(1, an_object(1)), *news))[0] == [1, None]


@pytest.mark.parametrize("status", [401, 403, 404, 400])
async def test_a_refusal_in_the_middle_is_raised(status: int) -> None:
    first = a_watch(an_event("MODIFIED", 2))
    async with connect(a_list(1, an_object(1)), first, refuse(status)) as (cluster, _):
        changes = cluster.follow(CALLER, "finetunes", "a")
        assert await anext(changes)
        assert await anext(changes)
        with pytest.raises(KubeError) as caught:
            await asyncio.wait_for(anext(changes), 5)
        assert caught.value.status == status


async def test_a_missing_object_is_raised_at_the_start() -> None:
    async with connect(a_list(1)) as (cluster, _):
        with pytest.raises(KubeError) as caught:
            await anext(cluster.follow(CALLER, "finetunes", "a"))
        assert caught.value.status == 404


@pytest.mark.parametrize(
    "fault",
    [
        refuse(503),
        refuse(500),
        refuse(429),
        reply(b"<html>", 502),
        reply(b"garbage"),
        reply(b"[]"),
        reply({"type": "MODIFIED", "object": "garbage"}),
        reply({"type": 7}),
        reply(b"", 302, Location="/elsewhere"),
        a_watch({"type": "ERROR", "object": {"kind": "Status", "code": 500}}),
        a_watch({"type": "ERROR", "object": "garbage"}),
    ],
)
async def test_a_fault_of_the_server_only_delays_a_change(fault: Answer) -> None:
    rest = a_watch(an_event("MODIFIED", 2), an_event("DELETED", 3))
    found, _ = await versions(a_list(1, an_object(1)), fault, fault, rest)
    assert found == [1, 2, None]


@pytest.mark.parametrize(
    "fault",
    [
        refuse(503),
        reply({"items": []}),
        reply({"metadata": {"resourceVersion": "1"}, "items": [7]}),
        reply({"metadata": {"resourceVersion": "1"}, "items": {}}),
        reply({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {}}]}),
    ],
)
async def test_a_fault_at_the_start_only_delays_the_first_object(fault: Answer) -> None:
    found, _ = await versions(fault, fault, a_list(1, an_object(1)), a_watch(end="wait"), most=1)
    assert found == [1]


async def test_an_event_without_an_end_is_a_fault() -> None:
    endless = reply(b"x" * (9 * 2**20))
    rest = a_watch(an_event("DELETED", 3))
    assert (await versions(a_list(1, an_object(1)), endless, rest))[0] == [1, None]


async def test_watches_that_end_at_once_are_opened_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(following, "BACKOFF_SECONDS", 0.1)
    async with connect(a_list(1, an_object(1)), a_watch()) as (cluster, server):
        changes = cluster.follow(CALLER, "finetunes", "a")
        await anext(changes)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 1.5)
    assert 3 <= len(server.requests) <= 7


async def test_a_follower_that_stops_closes_its_watch() -> None:
    async with connect(a_list(1, an_object(1)), a_watch(end="wait")) as (cluster, server):
        changes = cluster.follow(CALLER, "finetunes", "a")
        await anext(changes)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(changes), 0.2)
        await changes.aclose()
        for _ in range(50):
            if server.requests[1].transport is None:
                break
            await asyncio.sleep(0.02)
        assert server.requests[1].transport is None
