"""A watch that heals: whatever the server does, each state is seen, and nothing loops hotly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError, UnreachableError
from finetune_cli.cluster.watching import (
    LONGEST_DELAY,
    POLL_SECONDS,
    Current,
    Deleted,
    Disconnected,
    Update,
    watch_object,
)


def an_object(version: int, uid: str = "u") -> JsonObject:
    return {"metadata": {"name": "a", "uid": uid, "resourceVersion": str(version)}}


GONE = ApiError("too old", "", 410, {})
FORBIDDEN = ApiError("no", "", 403, {})
BUSY = ApiError("busy", "", 503, {})
MISSING = ApiError("gone", "", 404, {"kind": "Status", "message": "not found"})
LOST = UnreachableError("m", "h", "connection refused")


class Script:
    """Plays a server: answers of `get`, and streams of `watch`, in their order.

    An exception is raised where it stands. What is asked beyond the script fails the test.
    """

    def __init__(self, gets: list[JsonObject | Exception], watches: list[list[Any]]) -> None:
        self.gets, self.watches = gets, watches
        self.asked: list[str] = []

    def get(self, name: str) -> JsonObject:
        self.asked.append("get")
        answer = self.gets.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def watch(self, name: str, version: str) -> Iterator[tuple[str, JsonObject]]:
        self.asked.append(f"watch {version}")
        for event in self.watches.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def play(script: Script, count: int) -> tuple[list[Update], list[float]]:
    """The first `count` updates, and the pauses between them."""
    pauses: list[float] = []
    found: list[Update] = []
    for update in watch_object(script, "a", pause=pauses.append):  # type: ignore[arg-type]
        found.append(update)
        if len(found) == count:
            break
    return found, pauses


def test_a_watch_continues_where_the_last_one_ended() -> None:
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    script = Script(
        [an_object(1)],
        [[("MODIFIED", an_object(2)), bookmark], [("MODIFIED", an_object(10))]],
    )
    found, _ = play(script, 3)
    assert found == [Current(an_object(1)), Current(an_object(2)), Current(an_object(10))]
    assert script.asked == ["get", "watch 1", "watch 9"]


def test_a_forgotten_version_is_read_anew_after_a_breath() -> None:
    script = Script([an_object(1), an_object(50)], [[GONE], [("MODIFIED", an_object(51))]])
    found, pauses = play(script, 3)
    assert found[-1] == Current(an_object(51))
    assert script.asked == ["get", "watch 1", "get", "watch 50"]
    assert all(pause > 0 for pause in pauses)
    assert len(pauses) == 1


def test_watches_that_end_at_once_are_not_asked_for_hotly() -> None:
    script = Script([an_object(n) for n in range(1, 5)], [[], [], []])
    found, pauses = play(script, 4)
    assert len(found) == 4
    assert len(pauses) == 3
    assert min(pauses) > 0


def test_a_lost_connection_is_sought_with_longer_and_longer_waits() -> None:
    script = Script([an_object(1), *[LOST] * 9, BUSY, an_object(2)], [[LOST], []])
    found, pauses = play(script, 13)
    assert [type(update) for update in found] == [Current, *[Disconnected] * 11, Current]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == LONGEST_DELAY


def test_after_a_success_the_waits_begin_anew() -> None:
    script = Script([LOST, LOST, an_object(1), LOST], [[LOST]])
    found, pauses = play(script, 4)
    assert [type(update) for update in found] == [Disconnected, Disconnected, Current, Disconnected]
    assert pauses[0] == found[-1].delay  # type: ignore[union-attr]


def test_who_may_not_watch_reads_now_and_then() -> None:
    script = Script([an_object(1), an_object(2)], [[FORBIDDEN]])
    found, pauses = play(script, 2)
    assert found == [Current(an_object(1)), Current(an_object(2))]
    assert pauses == [POLL_SECONDS]
    assert script.asked == ["get", "watch 1", "get"]


@pytest.mark.parametrize(
    ("gets", "watches"),
    [
        ([an_object(1)], [[("DELETED", an_object(2))]]),
        ([an_object(1), MISSING], [[LOST]]),
        ([an_object(1), an_object(7, "other")], [[LOST]]),
        ([an_object(1)], [[("ADDED", an_object(7, "other"))]]),
    ],
)
def test_it_ends_when_the_object_is_gone_or_another_has_its_name(
    gets: list[JsonObject | Exception], watches: list[list[Any]]
) -> None:
    updates = [
        it
        for it in watch_object(Script(gets, watches), "a", pause=lambda _: None)  # type: ignore[arg-type]
        if not isinstance(it, Disconnected)
    ]
    assert updates == [Current(an_object(1)), Deleted()]


@pytest.mark.parametrize("error", [MISSING, FORBIDDEN, ApiError("no login", "", 401, {})])
def test_an_error_that_retries_cannot_resolve_is_raised(error: ApiError) -> None:
    with pytest.raises(ApiError):
        play(Script([error], []), 1)


def test_who_has_a_deadline_reads_now_and_then_and_sees_a_deletion() -> None:
    script = Script([an_object(1), LOST, an_object(2), MISSING], [])
    pauses: list[float] = []
    watched = watch_object(script, "a", may_watch=False, pause=pauses.append)  # type: ignore[arg-type]
    kinds = [type(update) for update in watched]
    assert kinds == [Current, Disconnected, Current, Deleted]
    assert (pauses[0], pauses[2]) == (POLL_SECONDS, POLL_SECONDS)
    assert script.asked == ["get"] * 4
