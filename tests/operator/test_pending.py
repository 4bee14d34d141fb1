"""The causes of waiting pods, and the effects of a queue on an attempt."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.core.observed import Job, Workload
from finetune_operator.core.pending import explain
from tests.support.objects import NOW, World, a_finetune, a_settings, failed, progress, trained

LACKS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
MIXED = "0/3 nodes are available: 1 node(s) had untolerated taint {a: b}, 2 Insufficient cpu."
NO_VICTIMS = "preemption: 0/3 nodes are available: 3 No preemption victims found."
LACKING = messages.nodes_lack("3", "nvidia.com/gpu")
QUOTA = "exceeded quota: gpus, requested: pods=1, used: pods=2, limited: pods=2"


def a_waiting_job(*pods: dict[str, Any], wanted: int = 4) -> Job:
    world = World(a_finetune(resources={"nodes": wanted, "gpusPerNode": 1})).until_training()
    name = world.job("a1")
    for pod, status in zip(world.pods[name], pods, strict=False):
        pod["status"] = {"phase": "Pending", **status}
    return Job.parse(world.jobs[name], world.pods[name])


def unscheduled(message: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}


def waiting(reason: str, message: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason, "message": message}}}]}


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (unscheduled(LACKS), messages.unschedulable(2, 4, LACKING)),
        (unscheduled(f"{LACKS} {NO_VICTIMS}"), messages.unschedulable(2, 4, LACKING)),
        (
            unscheduled(f"{LACKS} no new claims to deallocate, {NO_VICTIMS}"),
            messages.unschedulable(2, 4, LACKING),
        ),
        (unscheduled(f"{MIXED} {NO_VICTIMS}"), messages.unschedulable(2, 4, MIXED)),
        (
            waiting("ErrImagePull", "registry says 401"),
            messages.image_not_pulled(2, 4, "", "registry says 401"),
        ),
        (
            waiting(
                "ImagePullBackOff",
                'Back-off pulling image "r/t:1": ErrImagePull: registry says 401',
            ),
            messages.image_not_pulled(2, 4, "", "registry says 401"),
        ),
        (
            waiting("CreateContainerConfigError", 'secret "s" not found'),
            messages.container_not_started(2, 4, "", 'secret "s" not found'),
        ),
    ],
)
def test_two_of_four_pods_wait_for_one_thing(
    status: dict[str, Any], message: messages.StatusMessage
) -> None:
    assert explain(a_waiting_job(status, status), 4) == message


def test_the_message_on_pods_that_a_quota_refuses_does_not_change() -> None:
    job = a_waiting_job()
    job = replace(job, pods=job.pods[:2])
    found = {
        explain(replace(job, refused=f'Error creating: pods "{name}" is forbidden: {QUOTA}'), 4)
        for name in ("ft-a1-3-abcde", "ft-a1-2-fghij")
    }
    assert found == {messages.pods_refused(2, 4, QUOTA, is_quota=True)}


def test_another_refusal_is_not_reported_as_a_quota() -> None:
    job = replace(a_waiting_job(), pods=(), refused="Error creating: violates PodSecurity")
    assert explain(job, 4) == messages.pods_refused(4, 4, "violates PodSecurity", is_quota=False)


def test_an_old_refusal_is_ignored_when_all_pods_exist() -> None:
    job = replace(a_waiting_job(), refused=QUOTA)
    assert explain(job, 4).reason == Reason.STARTING


def in_queue(**spec: Any) -> World:
    settings = a_settings(kueueVersion="v1beta1")
    world = World(a_finetune(queueName="gpus", maxRestarts=0, **spec), settings)
    return world.until_training()


def admitted(world: World, number: int) -> World:
    world.admit(f"a{number}")
    world.ready_pods(f"a{number}")
    world.progress = progress(attempt=number, resumed_from_step=number * 10 - 10)
    world.settle()
    return world


def test_the_status_shows_the_queue_position_and_the_cause() -> None:
    world = in_queue()
    world.workload = Workload(waiting="insufficient unused quota", evicted=None, position=2)
    world.settle()
    assert (world.status.state, world.status.stage) == ("pending", "queued")
    assert world.status.reason == "Queued"
    assert world.status.message == messages.queued("gpus", 2, "insufficient unused quota").message
    assert world.messages()[-1] == messages.queue_position(1, 2).message
    events = len(world.messages())
    world.workload = Workload(waiting="insufficient unused quota", evicted=None, position=1)
    world.settle()
    assert "at position 1" in world.status.message
    assert len(world.messages()) == events
    conditions = {item.type: item.status for item in world.status.conditions}
    assert conditions["Suspended"] == "False"


def test_waiting_in_a_queue_does_not_stop_the_pending_deadline() -> None:
    world = in_queue(pendingDeadlineSeconds=600)
    world.settle()
    world.now = NOW + timedelta(seconds=3600)
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", "DeadlineExceeded")
    assert world.status.attempts[0].reason == "Queued"


@pytest.mark.parametrize("pods_are_gone", [True, False])
def test_an_eviction_by_the_queue_queues_the_next_attempt_uncounted(pods_are_gone: bool) -> None:
    world = admitted(in_queue(), 1)
    assert world.status.state == "running"
    name = world.job("a1")
    world.jobs[name]["spec"]["suspend"] = True
    world.workload = Workload(waiting=None, evicted="Preempted to accommodate another workload")
    world.progress = None
    if pods_are_gone:
        world.pods[name] = []
    else:
        stopped = failed(Reason.POD_LOST, "stopped after step 12", exit_code=143)
        world.end_pod("a1", 0, 143, stopped)
    world.settle()
    first, second = world.status.attempts
    assert (first.reason, first.counted, second.ended_at) == ("Preempted", False, None)
    assert "Preempted to accommodate another workload" in first.message
    assert (world.status.state, world.status.stage) == ("pending", "queued")
    assert [job["spec"]["suspend"] for key, job in world.jobs.items() if "-a" in key[-3:]] == [True]
    admitted(world, 2)
    assert world.status.state == "running"
    cause = messages.queue_withdrew("gpus", world.workload.evicted).message
    assert world.messages()[-1] == messages.restarted(2, 10, cause).message


def test_a_model_that_is_published_before_the_queue_evicts_the_pods_counts() -> None:
    world = admitted(in_queue(), 1)
    world.end_pod("a1", 0, 0, trained())
    world.jobs[world.job("a1")]["spec"]["suspend"] = True
    world.settle()
    assert world.status.state == "succeeded"


def test_a_job_that_was_never_admitted_is_not_evicted() -> None:
    world = in_queue()
    for _ in range(3):
        world.settle()
    assert len(world.status.attempts) == 1
