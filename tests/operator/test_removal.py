"""Jobs that a FineTune no longer needs, and that would hold resources by themselves."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from finetune_api import names
from finetune_api.names import Reason
from finetune_operator.core.attempts.removal import (
    CONTROLLER_SECONDS,
    SIDECAR_SECONDS,
    STRAGGLER_SECONDS,
)
from tests.support.objects import World, a_finetune, failed, prepared, trained


def edit(world: World, **changes: Any) -> None:
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(**changes))


def cancel(world: World) -> None:
    edit(world, cancel=True)


def fail(world: World) -> None:
    world.end_pod("a1", 1, names.EXIT_USER, failed(Reason.NAN_LOSS))
    world.end_pod("a1", 0, 1, "lost the connection")
    world.fail_job("a1")


def succeed(world: World) -> None:
    world.end_pod("a1", 0, 0, trained())
    world.end_pod("a1", 1, 0, None)


ENDS = [cancel, fail, succeed]


def recreate(world: World, ending: str) -> None:
    """The request of a Job that is gone is committed once more."""
    made = [item for item in world.created if item["kind"] == "Job"]
    manifest = next(item for item in made if item["metadata"]["name"].endswith(ending))
    name = manifest["metadata"]["name"]
    if name in world.jobs:
        world.remove_job(name)
    world.now += timedelta(seconds=5)
    world.add_job(manifest)


@pytest.mark.parametrize("ending", ["prepare", "a1"])
@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_is_committed_after_the_end_is_deleted(
    end: Callable[[World], None], ending: str
) -> None:
    world = World().until_running()
    end(world)
    world.settle()
    status = world.status
    recreate(world, ending)
    world.step()
    assert not any(name.endswith(ending) for name in world.jobs)
    assert world.status == status


@pytest.mark.parametrize("end", ENDS)
def test_jobs_that_have_ended_are_kept_after_the_end(end: Callable[[World], None]) -> None:
    world = World().until_running()
    end(world)
    world.settle()
    world.now += timedelta(days=1)
    assert world.step().requeue_after is None
    assert bool(world.jobs) == (end is not cancel)


def test_the_logs_of_a_check_that_failed_are_kept_whatever_the_clock_of_its_node_says() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, names.EXIT_USER, failed(Reason.INVALID_DATA))
    pod = world.pod("prepare")
    for item in pod["status"]["containerStatuses"]:
        item["state"]["terminated"]["finishedAt"] = "2026-11-21T10:00:00Z"
    world.settle()
    assert world.status.state == "failed"
    assert any(name.endswith("prepare") for name in world.jobs)  # not marked as failed yet
    world.now += timedelta(seconds=SIDECAR_SECONDS + 1)
    world.settle()
    assert not world.jobs


def test_a_prepare_job_that_is_committed_after_its_result_is_deleted() -> None:
    world = World().until_running()
    recreate(world, "prepare")
    world.settle()
    assert not any(name.endswith("prepare") for name in world.jobs)
    assert world.status.state == "running"


def test_a_job_of_an_ended_attempt_that_is_committed_late_is_deleted() -> None:
    world = World().until_running()
    world.end_pod("a1", 1, 1, "boom")
    world.settle()
    recreate(world, "a1")
    world.settle()
    assert [name[-2:] for name in world.jobs if "-a" in name] == ["a2"]


def test_a_job_that_is_committed_during_a_suspension_is_deleted() -> None:
    world = World().until_running()
    edit(world, suspend=True)
    world.settle()
    recreate(world, "a1")
    world.settle()
    assert not any("-a" in name for name in world.jobs)
    assert world.status.reason == Reason.SUSPENDED


# --- injected containers --------------------------------------------------------------------------


def until_sidecars_remain(world: World) -> World:
    """Every main container has ended well now, and injected ones go on."""
    words = {"prepare": prepared(), "a1": trained()}
    for ending in ("a1", "prepare"):
        if not any(name.endswith(ending) for name in world.jobs):
            continue
        pods = world.pods[world.job(ending)]
        for index, pod in enumerate(pods):
            world.end_pod(ending, index, 0, words[ending] if not index else None, has_sidecar=True)
            main = pod["status"]["containerStatuses"][-1]["state"]["terminated"]
            main["finishedAt"] = world.now.isoformat()
        break
    return world


def test_sidecars_of_a_published_training_are_ended_after_a_moment() -> None:
    world = until_sidecars_remain(World().until_running())
    plan = world.step()
    assert world.status.state == "succeeded"
    assert plan.requeue_after is not None and plan.requeue_after <= SIDECAR_SECONDS + 1
    assert any(name.endswith("a1") for name in world.jobs)
    world.now += timedelta(seconds=plan.requeue_after)
    world.step()
    assert not any(name.endswith("a1") for name in world.jobs)


def test_sidecars_of_the_data_check_do_not_delay_the_training_and_are_ended() -> None:
    world = World()
    world.settle()
    until_sidecars_remain(world)
    world.settle()
    assert world.job("a1") and world.job("prepare")
    world.now += timedelta(seconds=SIDECAR_SECONDS)
    world.step()
    assert not any(name.endswith("prepare") for name in world.jobs)


def test_sidecars_of_a_dry_run_are_ended() -> None:
    world = World(a_finetune(dryRun=True))
    world.settle()
    until_sidecars_remain(world)
    plan = world.step()
    assert (world.status.state, world.status.reason) == ("succeeded", Reason.DRY_RUN)
    assert plan.requeue_after is not None
    world.now += timedelta(seconds=plan.requeue_after)
    world.step()
    assert not world.jobs


def test_a_native_sidecar_ends_by_itself_and_nothing_is_deleted() -> None:
    world = until_sidecars_remain(World().until_running())
    world.step()
    world.set_condition(world.job("a1"), "Complete")
    world.now += timedelta(hours=1)
    assert world.step().actions == ()


# --- other pods of the last attempt ---------------------------------------------------------------


def test_the_other_pods_of_a_published_training_have_ten_minutes() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    plan = world.step()
    assert world.status.state == "succeeded"
    assert plan.requeue_after is not None
    world.now += timedelta(seconds=STRAGGLER_SECONDS / 2)
    assert world.step().actions == ()
    world.now += timedelta(seconds=STRAGGLER_SECONDS / 2)
    world.step()
    assert not any(name.endswith("a1") for name in world.jobs)


def test_the_last_attempt_of_a_failure_keeps_its_logs_unless_its_job_never_ends() -> None:
    world = World().until_running()
    world.end_pod("a1", 1, names.EXIT_USER, failed(Reason.NAN_LOSS))
    world.settle()
    assert world.status.state == "failed"
    assert any(name.endswith("a1") for name in world.jobs)
    world.now += timedelta(seconds=STRAGGLER_SECONDS)
    world.step()
    assert not any(name.endswith("a1") for name in world.jobs)


# --- a Job controller that is late ----------------------------------------------------------------


def unmark(world: World, ending: str) -> None:
    """The pods of a Job have ended now, and its controller has not seen it yet."""
    world.jobs[world.job(ending)]["status"]["conditions"] = []
    for pod in world.pods[world.job(ending)]:
        ended = pod["status"]["containerStatuses"][-1]["state"]["terminated"]
        ended["finishedAt"] = world.now.isoformat()


def test_a_job_that_holds_nothing_waits_for_its_controller_after_the_end() -> None:
    world = World().until_running()
    succeed(world)
    unmark(world, "a1")
    world.settle()
    assert world.status.state == "succeeded"
    world.now += timedelta(seconds=SIDECAR_SECONDS + 1)
    assert world.step().actions == ()
    world.now += timedelta(seconds=CONTROLLER_SECONDS)
    world.step()
    assert not any(name.endswith("a1") for name in world.jobs)


def test_a_data_check_that_holds_nothing_waits_for_its_controller() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 0, prepared())
    unmark(world, "prepare")
    world.settle()
    world.now += timedelta(seconds=SIDECAR_SECONDS + 1)
    world.settle()
    assert world.job("a1") and world.job("prepare")
    world.now += timedelta(seconds=CONTROLLER_SECONDS)
    world.settle()
    assert not any(name.endswith("prepare") for name in world.jobs)


# --- what needs a second look ---------------------------------------------------------------------


@pytest.mark.parametrize(("end", "needs_look"), [(cancel, True), (fail, True), (succeed, False)])
def test_only_a_success_is_decided_on_what_the_watches_reported(
    end: Callable[[World], None], needs_look: bool
) -> None:
    world = World().until_running()
    end(world)
    before = world.status
    plan = world.step()
    assert plan.status.state in names.TERMINAL_STATES
    assert plan.is_irreversible(before) is needs_look
