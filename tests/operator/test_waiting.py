"""The causes of a waiting Job, read from answers of the API server and of Kueue."""

from datetime import UTC, datetime, timedelta

import pytest

from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, Workload
from finetune_operator.kube.client import Client
from finetune_operator.kube.waiting import with_cause
from tests.operator.conftest import Answers
from tests.support.objects import World, a_finetune, a_settings

WORKLOADS = "/apis/kueue.x-k8s.io/v1beta1/namespaces/team/workloads"
PENDING = (
    "/apis/visibility.kueue.x-k8s.io/v1beta1/namespaces/team/localqueues/gpus/pendingworkloads"
)
EVENTS = "/api/v1/namespaces/team/events"


def in_queue() -> World:
    settings = a_settings(kueueVersion="v1beta1")
    return World(a_finetune(queueName="gpus"), settings).until_training()


async def read(world: World, version: str = "v1beta1") -> Job:
    """The newest Job with the cause of its waiting."""
    async with Client() as client:
        jobs = await with_cause(client, world.finetune, world.observe().jobs, version)
    return max(jobs, key=lambda job: job.attempt or 0)


def a_workload(*conditions: JsonObject) -> JsonObject:
    return {"metadata": {"name": "job-ft-a1-12345"}, "status": {"conditions": list(conditions)}}


WAITS = {
    "type": "QuotaReserved",
    "status": "False",
    "reason": "Pending",
    "message": "couldn't assign flavors to pod set main: insufficient unused quota",
}


async def test_the_position_in_the_queue_counts_from_one(answers: Answers) -> None:
    world = in_queue()
    answers[WORKLOADS] = [a_workload(WAITS)]
    answers[PENDING] = [
        {"metadata": {"name": "another"}, "positionInLocalQueue": 0},
        {"metadata": {"name": "job-ft-a1-12345"}, "positionInLocalQueue": 1},
    ]
    job = await read(world)
    assert job.workload == Workload(waiting=WAITS["message"], evicted=None, position=2)
    path, query = answers.asked[0]
    assert path == WORKLOADS
    assert query == {"labelSelector": f"kueue.x-k8s.io/job-uid=uid-{job.name}"}


async def test_the_cause_of_an_eviction_is_the_message_of_kueue(answers: Answers) -> None:
    evicted = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "for another"}
    answers[WORKLOADS] = [a_workload(WAITS, evicted)]
    job = await read(in_queue())
    assert job.workload == Workload(waiting=WAITS["message"], evicted="for another")


@pytest.mark.parametrize("status", [403, 404])
async def test_without_permissions_only_the_cause_is_missing(answers: Answers, status: int) -> None:
    answers[WORKLOADS] = status
    assert (await read(in_queue())).workload is None


async def test_kueue_is_read_only_if_the_chart_enables_it(answers: Answers) -> None:
    assert (await read(in_queue(), "")).workload is None
    assert answers.asked == []


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


async def test_a_busy_server_gets_retries_and_then_the_queue_waits(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("finetune_operator.kube.client.asyncio.sleep", sleep)
    answers[WORKLOADS] = 429
    assert (await read(in_queue())).workload is None
    assert slept == [1, 1, 1, 1]
