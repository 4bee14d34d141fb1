"""When Leases are renewed: at once, and then once per interval, as long as they are used."""

from __future__ import annotations

import pytest

from finetune_gateway.backends.renewals import Renewals


def replay(story: str) -> Renewals:
    """Check a story of events: a time in seconds, what happens, and the Leases renewed then.

    `+a` and `-a` begin and end a request for the model of Lease a. `a` is a request that needs it,
    and `a!` is one that its server is not ready for. `.` is a look of the background task.
    """
    renewals = Renewals(30, 5)
    for event in story.split(";"):
        time, what, *expected = event.split()
        now = float(time)
        if what.startswith("+"):
            renewals.begin(what[1:], now)
        elif what.startswith("-"):
            renewals.end(what[1:])
        elif what != ".":
            renewals.want(what.rstrip("!"), now, is_ready=not what.endswith("!"))
        assert renewals.take_due(now) == expected, event
    return renewals


@pytest.mark.parametrize(
    "story",
    [
        pytest.param("0 +a; 0 a a; 1 +a; 1 a; 2 +a; 2 a", id="many requests renew once"),
        pytest.param("0 +a; 0 a a; 0 +b; 0 b b", id="each model has a Lease of its own"),
        pytest.param(
            "0 +a; 0 a a; 29.9 .; 30 . a; 59.9 .; 60 . a; 61 -a; 90 .; 900 .",
            id="a long request renews every 30 s until its end",
        ),
        pytest.param(
            "0 +a; 0 a a; 1 -a; 20 +a; 20 a; 21 -a; 31 +a; 31 a a",
            id="short requests renew at most every 30 s",
        ),
        pytest.param(
            "0 +a; 0 a a; 1 -a; 20 +a; 20 a; 29 .; 30 . a",
            id="a second request is renewed 30 s after the first one",
        ),
        pytest.param(
            "0 +a; 0 a a; 0.2 a!; 4.9 a!; 5 a! a; 9.9 a!; 10 a! a; 30 .; 40 . a",
            id="a server that is not ready renews every 5 s",
        ),
        pytest.param(
            "0 +a; 0 a a; 1 -a; 9 +a; 9 a; 9 a! a",
            id="a request that finds the server gone renews before 30 s",
        ),
        pytest.param("0 +a; 40 .; 41 -a", id="a refused request renews nothing"),
        pytest.param(
            "0 +a; 0 a a; 1 -a; 50 +a; 51 .", id="a refused request renews nothing after others"
        ),
    ],
)
def test_the_renewals_of(story: str) -> None:
    replay(story)


def test_a_request_that_ends_at_once_is_renewed_all_the_same() -> None:
    renewals = Renewals(30, 5)
    renewals.begin("a", 0)
    assert renewals.want("a", 0)
    renewals.end("a")
    assert renewals.take_due(0.001) == ["a"]


def test_only_the_first_request_in_flight_changes_when_the_task_looks() -> None:
    renewals = Renewals(30, 5)
    assert renewals.begin("a", 0)
    assert not renewals.begin("a", 0)
    renewals.end("a")
    renewals.end("a")
    assert renewals.begin("a", 0)


def test_the_task_waits_for_the_next_lease_in_use_and_without_one_forever() -> None:
    renewals = Renewals(30, 5)
    assert renewals.seconds_to_next(0) is None
    for at, name in ((0, "a"), (10, "b")):
        renewals.begin(name, at)
        assert renewals.seconds_to_next(at) == (None if name == "a" else 20)
        renewals.want(name, at)
        assert renewals.take_due(at) == [name]
    assert renewals.seconds_to_next(12) == 18
    renewals.end("a")
    assert renewals.seconds_to_next(12) == 28
    assert renewals.seconds_to_next(99) == 0
    renewals.end("b")
    assert renewals.seconds_to_next(12) is None


def test_what_no_request_needs_any_more_is_forgotten() -> None:
    renewals = replay("0 +a; 0 a a; 1 -a; 2 +b; 2 b b")
    assert renewals.known == 2
    renewals.take_due(29)
    assert renewals.known == 2  # a request for a must not renew it yet
    renewals.take_due(100)
    assert renewals.known == 1  # b has a request in flight
    refused = replay("0 +a; 0 -a")
    assert refused.known == 0


def test_a_refusal_is_known_until_the_lease_is_renewed() -> None:
    renewals = replay("0 +a; 0 a a")
    assert renewals.refusal("a") is None
    renewals.record("a", 404)
    assert renewals.refusal("a") == 404
    renewals.record("a", None)
    assert renewals.refusal("a") is None
    renewals.record("forgotten", 403)
    assert renewals.refusal("forgotten") is None
