"""The wait between attempts: its length, and that no attempt is lost or repeated."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api import names
from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_operator.core.attempts.backoff import seconds_to_wait
from finetune_operator.core.plan import stamp
from tests.support.objects import NOW, World, a_finetune, a_settings, failed, trained

CRASH = (1, "boom")


def an_attempt(seconds: float, *, counted: bool = True) -> Attempt:
    ended = stamp(NOW + timedelta(seconds=seconds))
    return Attempt(number=1, started_at=stamp(NOW), ended_at=ended, counted=counted)


@pytest.mark.parametrize(
    ("lasted", "wait"),
    [
        ([5], 10),
        ([5, 5], 20),
        ([5, 5, 5, 5], 80),
        ([5] * 6, 300),
        ([5] * 100, 300),
        ([3600], 10),
        ([5, 5, 3600], 10),
        ([5, 3600, 5], 10),
        ([3600, 5, 5], 20),
    ],
)
def test_the_wait_doubles_with_each_consecutive_crash_up_to_five_minutes(
    lasted: list[float], wait: float
) -> None:
    assert seconds_to_wait([an_attempt(seconds) for seconds in lasted], 10) == wait


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans())), st.floats(0, 100))
def test_a_wait_is_bounded_and_only_counted_failures_wait(
    ends: list[tuple[float, bool]], first: float
) -> None:
    attempts = [an_attempt(seconds, counted=counted) for seconds, counted in ends]
    wait = seconds_to_wait(attempts, first)
    assert 0 <= wait <= 30 * first
    if not attempts or not attempts[-1].counted:
        assert wait == 0


def crashed(**settings: float) -> World:
    world = World(a_finetune(maxRestarts=5), a_settings(**{"restartSeconds": 10, **settings}))
    world.until_running().end_pod("a1", 1, *CRASH)
    world.settle()
    return world


def test_the_status_shows_the_start_of_the_next_attempt_which_starts_then() -> None:
    world = crashed()
    first, second = world.status.attempts
    assert world.status.message.startswith(f"attempt 2 starts at {second.started_at}: rank 1 ended")
    assert (world.status.state, world.status.reason) == ("pending", "Restarting")
    assert second.started_at > first.ended_at
    assert [name[-2:] for name in world.jobs if "-a" in name] == ["a1"]
    written = world.status_writes
    world.now += timedelta(seconds=10)
    world.settle()
    assert [name[-2:] for name in world.jobs if "-a" in name] == ["a2"]
    assert world.job("a2") in world.services
    assert world.status_writes == written  # the start is already in the status


def test_the_next_reconcile_is_at_the_end_of_the_wait() -> None:
    world = World(a_finetune(), a_settings(restartSeconds=10)).until_running()
    world.end_pod("a1", 1, *CRASH)
    assert world.step().requeue_after == 10
    left = world.step().requeue_after
    assert left is not None and 8 <= left <= 9


@pytest.mark.parametrize("writes", [True, False])
def test_an_operator_crash_during_the_wait_keeps_the_time_and_creates_one_job(
    writes: bool,
) -> None:
    world = crashed()
    starts_at = world.status.attempts[1].started_at
    world.step()  # a restart of the operator in the middle of the wait
    assert world.status.attempts[1].started_at == starts_at
    world.now += timedelta(seconds=10)
    world.step(actions_at_most=1, writes=writes)  # the Job, and neither Service nor deletion
    world.settle()
    made = [item["metadata"]["name"] for item in world.created if item["kind"] == "Job"]
    assert [name[-2:] for name in made] == ["re", "a1", "a2"]
    assert world.job("a2") in world.services


def test_an_eviction_does_not_wait() -> None:
    world = World(a_finetune(), a_settings(restartSeconds=10)).until_running()
    world.pod("a1", 1)["status"] = {
        "phase": "Failed",
        "conditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    world.settle()
    assert world.job("a2")


def test_a_smaller_micro_batch_does_not_wait() -> None:
    world = World(a_finetune(), a_settings(restartSeconds=10)).until_running()
    world.end_pod("a1", 0, 1, failed(Reason.OUT_OF_MEMORY))
    world.settle()
    assert world.job("a2")


def test_a_suspension_during_the_wait_ends_the_attempt_and_resuming_starts_another() -> None:
    world = crashed()
    spec = world.finetune.spec
    world.finetune = world.finetune.replace(spec=spec.replace(suspend=True))
    world.settle()
    assert world.status.reason == "Suspended"
    assert [item.reason for item in world.status.attempts] == ["RankCrashed", "Suspended"]
    world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    assert world.job("a3")
    assert world.status.attempts[1].started_at <= world.status.attempts[1].ended_at


def test_a_cancellation_ends_the_wait() -> None:
    world = crashed()
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    assert world.status.state == "cancelled"
    assert [item.reason for item in world.status.attempts] == ["RankCrashed", "Cancelled"]
    assert not world.jobs


def test_deleting_the_failed_job_does_not_end_the_fine_tune() -> None:
    world = crashed()
    world.jobs.pop(world.job("a1"))
    world.settle()
    assert world.job("a2")
    assert world.status.attempts[1].started_at <= stamp(world.now)


def test_deleting_the_job_of_the_new_attempt_fails_the_fine_tune_once_its_pods_were_seen() -> None:
    world = crashed()
    world.now += timedelta(seconds=10)
    world.settle()
    world.ready_pods("a2")
    world.settle()
    world.remove_job(world.job("a2"))
    world.settle()
    world.end_pod("lookup", 0, names.EXIT_USER, failed(Reason.DATA_NOT_FOUND))
    world.settle()
    assert world.status.error.code == "JobDeleted"
    assert [item.reason for item in world.status.attempts] == ["RankCrashed", "JobDeleted"]


def test_a_ttl_that_deletes_the_failed_job_while_the_operator_is_away_loses_no_run() -> None:
    world = crashed()
    world.remove_job(world.job("a1"))
    world.now += timedelta(hours=1)
    world.settle()
    assert world.job("a2")
    assert world.status.attempts[1].ended_at is None


def test_a_clock_that_was_set_back_prolongs_the_wait_by_five_minutes_at_most() -> None:
    world = crashed()
    world.now -= timedelta(hours=1)
    world.settle()
    assert world.job("a2")


def test_a_model_that_is_published_during_the_wait_ends_it() -> None:
    world = crashed()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"
    assert all(item.ended_at for item in world.status.attempts)


def test_a_wait_keeps_only_the_job_before_it() -> None:
    world = World(settings=a_settings(restartSeconds=10)).until_training()
    evicted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    world.pod("a1")["status"] = {"phase": "Failed", "conditions": [evicted]}
    world.step(actions_at_most=1, writes=False)  # the operator crashed after it created attempt 2
    world.end_pod("a2", 0, names.EXIT_CRASH, "boom")
    for _ in range(3):
        world.step()
    assert [item.number for item in world.status.attempts] == [1, 2, 3]
    assert [name[-3:] for name in world.jobs if "prepare" not in name] == ["-a2"]
