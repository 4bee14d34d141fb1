"""The causes of a waiting Job, read from answers of the API server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, KubeletEvent
from finetune_operator.kube.client import Client
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.rare_reads import RareReads
from finetune_operator.kube.waiting import with_cause
from tests.operator.conftest import Answers
from tests.support.objects import World

EVENTS = "/api/v1/namespaces/team/events"


async def read(world: World) -> Job:
    """The newest Job with the cause of its waiting."""
    async with Client() as client:
        kueue = Kueue(client, may_read=False)
        jobs = await with_cause(client, world.finetune, world.observe().jobs, kueue, RareReads())
    return max(jobs, key=lambda job: job.attempt or 0)


def without_pods(age: timedelta) -> World:
    world = World().until_training()
    name = world.job("a1")
    world.pods[name] = []
    made = datetime.now(UTC) - age
    world.jobs[name]["metadata"]["creationTimestamp"] = made.strftime("%Y-%m-%dT%H:%M:%SZ")
    return world


async def test_the_last_refusal_of_pods_is_read(answers: Answers) -> None:
    answers[EVENTS] = [
        {"message": "new", "lastTimestamp": "2026-11-21T12:00:09Z"},
        {"message": "old", "lastTimestamp": "2026-11-21T12:00:00Z"},
    ]
    job = await read(without_pods(timedelta(minutes=5)))
    assert job.refused == "new"
    ((_, query),) = answers.asked
    assert query["fieldSelector"] == f"involvedObject.uid=uid-{job.name},reason=FailedCreate"


async def test_a_job_that_was_just_created_gets_time(answers: Answers) -> None:
    assert (await read(without_pods(timedelta()))).refused is None
    assert (await read(without_pods(timedelta(seconds=10)))).refused is None  # not processed yet
    assert answers.asked == []


async def test_a_processed_job_without_pods_is_explained(answers: Answers) -> None:
    answers[EVENTS] = [{"message": "quota", "lastTimestamp": "2026-11-21T12:00:09Z"}]
    world = without_pods(timedelta(seconds=10))
    world.jobs[world.job("a1")]["status"] = {"startTime": "2026-11-21T12:00:00Z"}
    assert (await read(world)).refused == "quota"


async def test_a_job_with_all_its_pods_costs_no_request(answers: Answers) -> None:
    await read(World().until_running())
    assert answers.asked == []


SILENT = {"phase": "Pending", "startTime": "2026-11-21T12:00:00Z"}


def an_event(reason: str, message: str, seconds_ago: float = 5, **more: str) -> JsonObject:
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return {"reason": reason, "message": message, "lastTimestamp": at.isoformat(), **more}


def a_silent_world(**status: Any) -> World:
    """The first pod has had a node for long, and its status does not say why it does not start."""
    world = World().until_training()
    pod = world.pod("a1")
    pod["metadata"]["uid"] = "the-pod"
    pod["spec"]["nodeName"] = "node-1"
    pod["status"] = {**SILENT, **status}
    return world


async def test_a_silent_pod_is_explained_by_the_newest_cause_of_its_events(
    answers: Answers,
) -> None:
    world = a_silent_world()
    answers[EVENTS] = [
        an_event("FailedMount", "a cause that is over", seconds_ago=600),
        an_event("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[cache]"),
        an_event("FailedMount", 'MountVolume.SetUp failed for volume "cache"'),
        an_event("Unhealthy", "Readiness probe failed"),
    ]
    job = await read(world)
    assert [pod.kubelet_event for pod in job.pods] == [
        KubeletEvent("FailedMount", 'MountVolume.SetUp failed for volume "cache"'),
        None,
    ]
    ((path, query),) = answers.asked
    assert path == EVENTS
    assert query == {"fieldSelector": "involvedObject.uid=the-pod,type=Warning", "limit": "50"}


async def test_events_in_any_order_and_of_any_form_are_one_cause(answers: Answers) -> None:
    world = a_silent_world()
    events = [
        an_event("FailedMount", "b"),
        an_event("FailedMount", "a"),
        {"reason": "FailedMount", "message": "without a time"},
        {"reason": "FailedMount", "lastTimestamp": "never"},
        {"series": {"lastObservedTime": datetime.now(UTC).isoformat()}, "message": "c"},
    ]
    found = set()
    for _ in range(2):
        events.reverse()
        answers[EVENTS] = events
        found.add((await read(world)).pods[0].kubelet_event)
    assert found == {KubeletEvent("FailedMount", "a")}


@pytest.mark.parametrize(
    "status",
    [
        {"startTime": "2126-11-21T12:00:00Z"},  # not long ago
        {"phase": "Running"},
        {"containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
    ],
)
async def test_events_of_pods_are_not_read_without_need(
    answers: Answers, status: JsonObject
) -> None:
    await read(a_silent_world(**status))
    assert answers.asked == []


async def test_an_injected_init_container_that_runs_for_long_is_named(answers: Answers) -> None:
    running = {"name": "vault-agent", "state": {"running": {}}}
    world = a_silent_world(initContainerStatuses=[running])
    answers[EVENTS] = []
    assert (await read(world)).pods[0].kubelet_event == KubeletEvent("", "vault-agent")


async def test_without_permission_for_events_the_pod_is_just_starting(answers: Answers) -> None:
    answers[EVENTS] = 403
    assert (await read(a_silent_world())).pods[0].kubelet_event is None
