"""Deadlines, stalls, and the TTL, without a cluster."""

from datetime import datetime, timedelta

import pytest

from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.build.lookup_job import build_lookup_job
from finetune_operator.core.decide import decide
from finetune_operator.core.plan import stamp
from tests.operator.test_deletion import a_model
from tests.support.objects import NOW, World, a_finetune, a_settings, failed, progress, trained


def at(world: World, seconds: float) -> World:
    world.now = NOW + timedelta(seconds=seconds)
    return world


def test_a_pending_deadline_fails_with_the_cause_of_the_wait() -> None:
    world = World(a_finetune(pendingDeadlineSeconds=60)).until_training()
    pod = world.pod("a1", 0)
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes have nvidia.com/gpu free"}
    ]
    world.settle()
    assert world.status.state == "pending"
    at(world, 200).settle()
    assert (world.status.state, world.status.error.code) == ("failed", "DeadlineExceeded")
    assert world.status.error.param == "pendingDeadlineSeconds"
    assert "0/3 nodes have nvidia.com/gpu free" in world.status.error.message
    assert world.jobs == {}


WEEK = 7 * 24 * 3600


@pytest.mark.parametrize(
    ("chart", "spec", "limit"),
    [
        ({}, {}, WEEK),
        ({"pendingDeadlineSeconds": 300}, {}, 300),
        ({"pendingDeadlineSeconds": 0}, {}, None),
        ({"pendingDeadlineSeconds": 300}, {"pendingDeadlineSeconds": 2 * WEEK}, 2 * WEEK),
        ({"pendingDeadlineSeconds": 0}, {"pendingDeadlineSeconds": 60}, 60),
        ({"pendingDeadlineSeconds": 300}, {"queueName": "gpus"}, None),
        ({}, {"queueName": "gpus", "pendingDeadlineSeconds": 60}, 60),
    ],
)
def test_the_chart_limits_the_wait_of_finetunes_without_a_queue(
    chart: JsonObject, spec: JsonObject, limit: int | None
) -> None:
    world = World(a_finetune(**spec), a_settings(**chart)).until_training()
    started = world.now
    if limit is not None:
        world.now = NOW + timedelta(seconds=limit - 60)
        world.settle()
        assert world.status.state == "pending"
    world.now = started + timedelta(seconds=limit or 52 * WEEK)
    world.settle()
    assert world.status.state == ("pending" if limit is None else "failed")
    if limit is not None:
        assert world.status.error.param == "pendingDeadlineSeconds"
        assert f"more than {limit} s" in world.status.error.message


def test_the_default_limit_is_that_of_the_acceptance() -> None:
    """An upgrade must not end what waits for long, and the chart may change."""
    world = World(settings=a_settings(pendingDeadlineSeconds=300)).until_training()
    world.settings = a_settings(pendingDeadlineSeconds=10)
    at(world, 200).settle()
    assert world.status.state == "pending"

    of_before = world.status.resolved.replace(pending_deadline_seconds=None)
    older = world.status.replace(resolved=of_before)
    world.finetune = world.finetune.replace(status=older)
    at(world, 52 * WEEK).settle()
    assert world.status.state == "pending"


def test_a_suspension_does_not_use_up_the_default_limit() -> None:
    world = World(settings=a_settings(pendingDeadlineSeconds=300)).until_training()
    spec = world.finetune.spec
    world.finetune = world.finetune.replace(spec=spec.replace(suspend=True))
    world.settle()
    at(world, 10_000).settle()
    assert (world.status.state, world.status.reason) == ("pending", "Suspended")
    world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    at(world, 10_200).settle()
    assert world.status.state == "pending"
    at(world, 10_400).settle()
    assert world.status.state == "failed"


def test_a_reconcile_follows_when_the_deadline_passes() -> None:
    world = World(a_finetune(pendingDeadlineSeconds=5))
    plan = world.step()
    assert plan.requeue_after is not None
    assert plan.requeue_after <= 6


def test_the_deadline_of_a_job_without_gpus_is_explained() -> None:
    """The Job controller deletes the pods, and then marks the Job as failed."""
    world = World(settings=a_settings(cpuJobDeadlineSeconds=900))
    world.settle()
    job = world.jobs[world.job("prepare")]
    assert job["spec"]["activeDeadlineSeconds"] == 900
    world.end_pod("prepare", 0, 143, None)
    failing = {"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}
    job["status"] = {"conditions": [failing]}
    world.settle()
    assert world.status.state == "pending"
    assert "took more than 900 s" in world.status.message
    job["status"] = {"conditions": [failing, {**failing, "type": "Failed"}]}
    world.pods[job["metadata"]["name"]] = []
    world.settle()
    error = world.status.error
    assert (world.status.state, error.code) == ("failed", "DeadlineExceeded")
    assert "the prepare Job took more than 900 s" in error.message
    assert "pods.cpuJobDeadlineSeconds" in error.hint


def test_an_error_of_the_user_counts_more_than_the_deadline() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 65, failed("InvalidData", "line 17 is wrong"))
    passed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    world.jobs[world.job("prepare")]["status"] = {"conditions": [passed]}
    world.settle()
    assert world.status.error.code == "InvalidData"


def test_all_jobs_without_gpus_have_a_deadline_and_training_has_none() -> None:
    world = World().until_training()
    lookup = build_lookup_job(world.finetune, world.status.resolved, world.settings)
    deletion = build_deletion_job(a_model("Delete"), world.settings)
    for job in (world.created[0], lookup, deletion):
        assert job["spec"]["activeDeadlineSeconds"] == 14_400
    assert "activeDeadlineSeconds" not in world.jobs[world.job("a1")]["spec"]
    endless = a_settings(cpuJobDeadlineSeconds=0)
    assert "activeDeadlineSeconds" not in build_deletion_job(a_model("Delete"), endless)["spec"]


def test_an_active_deadline_fails_and_frees_the_gpus() -> None:
    world = World(a_finetune(activeDeadlineSeconds=100)).until_running()
    at(world, 90).settle()
    assert world.status.state == "running"
    at(world, 200).settle()
    assert (world.status.state, world.status.error.param) == ("failed", "activeDeadlineSeconds")
    assert world.jobs == {}


def test_a_model_that_is_published_when_the_deadline_passes_counts() -> None:
    world = World(a_finetune(activeDeadlineSeconds=100)).until_running()
    world.end_pod("a1", 0, 0, trained())
    at(world, 200).settle()
    assert world.status.state == "succeeded"


def test_suspension_stops_both_clocks() -> None:
    world = World(a_finetune(activeDeadlineSeconds=100, pendingDeadlineSeconds=50)).until_running()
    spec = world.finetune.spec
    world.finetune = world.finetune.replace(spec=spec.replace(suspend=True))
    world.settle()
    at(world, 10_000).settle()
    assert (world.status.state, world.status.reason) == ("pending", "Suspended")
    world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    world.ready_pods("a2")
    world.settle()
    at(world, 10_050).settle()
    assert world.status.state == "running"
    at(world, 10_200).settle()
    assert world.status.error.code == "DeadlineExceeded"


def test_a_stall_restarts_all_pods_and_counts() -> None:
    world = World(a_finetune(stallSeconds=30, maxRestarts=1)).until_running()
    world.progress = progress(last_step_age=29.0)
    world.settle()
    assert len(world.status.attempts) == 1
    world.progress = progress(last_step_age=31.0)
    world.step()
    first, second = world.status.attempts
    assert (first.reason, first.counted, second.ended_at) == ("Stalled", True, None)
    assert first.message == messages.stalled(31, 10, 30).message
    world.progress = None
    world.settle()
    world.ready_pods("a2")
    world.progress = progress(attempt=2, last_step_age=31.0)
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", "Stalled")


@pytest.mark.parametrize("stage", ["starting", "evaluating", "publishing"])
def test_stages_other_than_training_never_stall(stage: str) -> None:
    world = World(a_finetune(stallSeconds=30)).until_running()
    world.progress = progress(stage=stage, last_step_age=5000.0)
    world.settle()
    assert len(world.status.attempts) == 1


def test_a_ttl_deletes_only_the_jobs() -> None:
    world = World(a_finetune(ttlSecondsAfterFinished=60)).until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"
    status, made = world.status, len(world.created)
    assert world.jobs
    assert decide(world.observe(), world.settings, world.now).requeue_after is not None
    at(world, 3600).settle()
    assert world.jobs == {}
    assert (world.status, len(world.created)) == (status, made)


def test_without_a_ttl_the_jobs_are_kept() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    at(world, 10**7).settle()
    assert world.jobs


def test_a_final_stall_frees_the_gpus_after_the_status_write() -> None:
    world = World(a_finetune(stallSeconds=30, maxRestarts=0)).until_running()
    world.progress = progress(last_step_age=31.0)
    assert world.step().requeue_after == 0
    assert (world.status.state, world.status.error.code) == ("failed", "Stalled")
    assert world.jobs.keys() == {world.job("prepare"), world.job("a1")}
    world.settle()
    assert world.jobs.keys() == {world.job("prepare")}


@pytest.mark.parametrize("minutes", [-10, 10])
def test_an_operator_whose_clock_is_wrong_ends_nothing_before_its_time(minutes: int) -> None:
    spec = {"activeDeadlineSeconds": 300, "pendingDeadlineSeconds": 300, "maxRestarts": 2}
    world = World(a_finetune(**spec))
    world.now = NOW + timedelta(minutes=minutes)
    world.until_running()
    world.jobs[world.job("a1")]["metadata"]["creationTimestamp"] = stamp(NOW)
    world.end_pod("a1", 1, 137, "")  # according to its node, the pod started at NOW
    world.settle()
    world.ready_pods("a2")
    world.settle()
    assert world.status.state == "running"
    first = world.status.attempts[0]
    took = datetime.fromisoformat(first.ended_at) - datetime.fromisoformat(first.started_at)
    assert timedelta(0) <= took < timedelta(minutes=1)
    world.now += timedelta(minutes=6)
    world.settle()
    assert world.status.error.param == "activeDeadlineSeconds"
