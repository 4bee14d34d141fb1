"""Kueue: any version that the cluster serves, and what it says about a Job that it suspended."""

from dataclasses import replace

import pytest

from finetune_api import names
from finetune_api.model import Model
from finetune_api.names import Reason
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.build.model_resource import build_model
from finetune_operator.core.deletion import ObservedModel, decide_model
from finetune_operator.core.observed import Job, Workload
from finetune_operator.core.pending import explain
from finetune_operator.kube.client import Client
from finetune_operator.kube.discovery import ABSENT_SECONDS, DOUBT_SECONDS, FOUND_SECONDS
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.observe_model import observe_model
from finetune_operator.kube.rare_reads import RareReads
from tests.operator.conftest import Answers
from tests.support.objects import NOW, World, a_finetune, a_settings, failed, trained

GROUP, VISIBILITY = "/apis/kueue.x-k8s.io", "/apis/visibility.kueue.x-k8s.io"
JOBS, PODS = "/apis/batch/v1/namespaces/team/jobs", "/api/v1/namespaces/team/pods"
JOB_UID = "kueue.x-k8s.io/job-uid"


def workloads(version: str) -> str:
    return f"{GROUP}/{version}/namespaces/team/workloads"


def pending(version: str, queue: str = "gpus") -> str:
    return f"{VISIBILITY}/{version}/namespaces/team/localqueues/{queue}/pendingworkloads"


def serve(answers: Answers, *versions: str, visibility: tuple[str, ...] | None = None) -> None:
    """Serve Workloads in these versions, and the queues in these or others. Others answer 404."""
    served = {(GROUP, "workloads"): versions}
    served[VISIBILITY, "localqueues/pendingworkloads"] = (
        versions if visibility is None else visibility
    )
    for path in [path for path in answers if path.startswith((GROUP, VISIBILITY))]:
        del answers[path]
    for (group, resource), names_ in served.items():
        if names_:
            answers[group] = {"versions": [{"version": name} for name in names_]}
        for name in names_:
            answers[f"{group}/{name}"] = {"resources": [{"name": resource}]}
    for version in versions:
        answers[workloads(version)] = []
    for version in served[VISIBILITY, "localqueues/pendingworkloads"]:
        answers[pending(version)] = []


def a_workload(*conditions: JsonObject, **spec: object) -> JsonObject:
    return {
        "metadata": {"name": "job-ft-a1-12345"},
        "spec": {"queueName": "gpus", **spec},
        "status": {"conditions": list(conditions)},
    }


WAITS = {
    "type": "QuotaReserved",
    "status": "False",
    "reason": "Pending",
    "message": "couldn't assign flavors to pod set main: insufficient unused quota",
}
IN_PLACE_TWO = [
    {"metadata": {"name": "another"}, "positionInLocalQueue": 0},
    {"metadata": {"name": "job-ft-a1-12345"}, "positionInLocalQueue": 1},
]


def a_job(component: str = "a1", **spec: object) -> Job:
    world = World(a_finetune(queueName="gpus", **spec)).until_training()
    return next(job for job in world.observe().jobs if job.name.endswith(component))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def read(job: Job | None = None, *, may_read: bool = True, version: str = "") -> Job:
    async with Client() as client:
        kueue = Kueue(client, may_read=may_read, version=version)
        return await kueue.explain("team", job or a_job())


@pytest.mark.parametrize(
    ("served", "used"),
    [
        (("v1beta1",), "v1beta1"),
        (("v1beta2", "v1beta1"), "v1beta2"),
        (("v1beta1", "v1beta2"), "v1beta2"),
        (("v1beta2",), "v1beta2"),
        (("v1",), "v1"),
        (("v1", "v1beta2"), "v1beta2"),  # tested versions come first
        (("v1beta1", "v1alpha1"), "v1beta1"),
    ],
)
async def test_any_served_version_is_used(
    answers: Answers, served: tuple[str, ...], used: str
) -> None:
    serve(answers, *served)
    answers[workloads(used)] = [a_workload(WAITS)]
    answers[pending(used)] = IN_PLACE_TWO
    job = await read()
    assert job.workload == Workload(WAITS["message"], None, position=2, queue="gpus")
    asked = {path: query for path, query in answers.asked if "namespaces" in path}
    assert asked.keys() == {workloads(used), pending(used)}
    assert asked[workloads(used)] == {"labelSelector": f"{JOB_UID}=uid-{job.name}"}


@pytest.mark.parametrize(
    ("own", "others"), [("v1beta2", "v1beta1"), ("v1beta1", "v1beta2"), ("v1beta2", "v1")]
)
async def test_the_queues_have_a_version_of_their_own(
    answers: Answers, own: str, others: str
) -> None:
    serve(answers, own, visibility=(others,))
    answers[workloads(own)] = [a_workload(WAITS)]
    answers[pending(others)] = IN_PLACE_TWO
    found = (await read()).workload
    assert found is not None and found.position == 2


async def test_a_version_that_serves_other_kinds_only_is_not_used(answers: Answers) -> None:
    """CRDs are served one by one: the group can have a version without Workloads."""
    serve(answers, "v1beta2", "v1beta1")
    answers[f"{GROUP}/v1beta2"] = {"resources": [{"name": "clusterqueues"}]}
    answers[workloads("v1beta1")] = [a_workload(WAITS)]
    answers[workloads("v1beta2")] = 404
    assert (await read()).workload is not None


async def test_a_version_whose_server_is_down_leaves_the_others(answers: Answers) -> None:
    serve(answers, "v1beta1", visibility=("v1beta2", "v1beta1"))
    answers[f"{VISIBILITY}/v1beta2"] = 503
    answers[workloads("v1beta1")] = [a_workload(WAITS)]
    answers[pending("v1beta1")] = IN_PLACE_TWO
    found = (await read()).workload
    assert found is not None and found.position == 2


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
async def test_the_version_of_the_chart_is_used_if_it_is_served(
    answers: Answers, version: str
) -> None:
    serve(answers, "v1beta1", "v1beta2")
    answers[workloads(version)] = [a_workload(WAITS)]
    assert (await read(version=version)).workload is not None


async def test_the_former_default_of_the_chart_does_no_harm(answers: Answers) -> None:
    """`helm upgrade --reuse-values` keeps v1beta1, which Kueue 0.20 does not serve."""
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = [a_workload(WAITS)]
    assert (await read(version="v1beta1")).workload is not None


@pytest.mark.parametrize("status", [403, 500])
async def test_the_version_of_the_chart_is_used_without_discovery(
    answers: Answers, status: int
) -> None:
    serve(answers, "v1beta1")
    answers[GROUP] = answers[VISIBILITY] = status
    answers[workloads("v1beta1")] = [a_workload(WAITS)]
    answers[pending("v1beta1")] = IN_PLACE_TWO
    found = (await read(version="v1beta1")).workload
    assert found is not None and found.position == 2


@pytest.mark.parametrize(
    "answer", [{}, {"versions": None}, {"versions": [None, "v1", {"name": 3}]}, [], {"items": 3}]
)
async def test_odd_answers_of_an_aggregated_server_do_no_harm(
    answers: Answers, answer: object
) -> None:
    answers[GROUP] = answer
    assert (await read()).workload is None


async def test_kueue_that_is_installed_later_is_found(answers: Answers) -> None:
    clock = Clock()
    async with Client() as client:
        kueue = Kueue(client, may_read=True, clock=clock)
        await kueue.discover()
        assert (await kueue.explain("team", a_job())).workload is None
        before = len(answers.asked)
        await kueue.explain("team", a_job())
        assert len(answers.asked) == before  # what was not found is remembered for a while
        serve(answers, "v1beta2")
        answers[workloads("v1beta2")] = [a_workload(WAITS)]
        clock.now += ABSENT_SECONDS
        assert (await kueue.explain("team", a_job())).workload is not None


async def test_a_version_that_is_served_no_longer_is_replaced_at_once(answers: Answers) -> None:
    clock = Clock()
    serve(answers, "v1beta1")
    answers[workloads("v1beta1")] = [a_workload(WAITS)]
    answers[pending("v1beta1")] = IN_PLACE_TWO
    async with Client() as client:
        kueue = Kueue(client, may_read=True, clock=clock)
        await kueue.explain("team", a_job())
        serve(answers, "v1beta2")  # Kueue was upgraded
        answers[workloads("v1beta2")] = [a_workload(WAITS)]
        answers[pending("v1beta2")] = IN_PLACE_TWO
        clock.now += DOUBT_SECONDS
        found = (await kueue.explain("team", a_job())).workload
        assert found is not None and found.position == 2


async def test_a_newer_version_is_found_after_a_while(answers: Answers) -> None:
    clock = Clock()
    serve(answers, "v1beta1")
    async with Client() as client:
        kueue = Kueue(client, may_read=True, clock=clock)
        await kueue.explain("team", a_job())
        serve(answers, "v1beta1", "v1beta2")
        answers[workloads("v1beta2")] = [a_workload(WAITS)]
        assert (await kueue.explain("team", a_job())).workload is None
        clock.now += FOUND_SECONDS
        assert (await kueue.explain("team", a_job())).workload is not None


async def test_a_missing_queue_causes_no_search_at_each_request(answers: Answers) -> None:
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = [a_workload(WAITS)]
    answers[pending("v1beta2")] = 404  # the LocalQueue was deleted
    async with Client() as client:
        kueue = Kueue(client, may_read=True, clock=Clock())
        for _ in range(3):
            found = (await kueue.explain("team", a_job())).workload
            assert found is not None and found.position is None
    assert [path for path, _ in answers.asked].count(VISIBILITY) == 1


async def test_a_found_version_is_read_without_discovery(answers: Answers) -> None:
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = [a_workload(WAITS)]
    async with Client() as client:
        kueue = Kueue(client, may_read=True)
        await kueue.discover()
        answers.asked.clear()
        await kueue.explain("team", a_job())
    asked = [path for path, _ in answers.asked]
    assert asked == [workloads("v1beta2"), pending("v1beta2")]


async def test_kueue_is_read_only_if_the_chart_enables_it(answers: Answers) -> None:
    serve(answers, "v1beta2")
    assert (await read(may_read=False)).workload is None
    assert answers.asked == []


@pytest.mark.parametrize("status", [403, 404, 500])
async def test_without_permissions_only_the_cause_is_missing(answers: Answers, status: int) -> None:
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = status
    job = await read()
    assert job.workload is None
    assert explain(job, 2) == messages.queued("gpus", None, None)


async def test_a_busy_server_gets_retries_and_then_the_queue_waits(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("finetune_operator.kube.client.asyncio.sleep", sleep)
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = 429
    assert (await read()).workload is None
    assert slept == [1, 1, 1, 1]


async def test_the_newest_of_several_workloads_counts(answers: Answers) -> None:
    """A Job whose size changes has one Workload per size."""
    serve(answers, "v1beta2")
    old, new = a_workload(), a_workload(WAITS)
    old["metadata"]["creationTimestamp"] = "2026-11-21T12:00:00Z"
    new["metadata"]["creationTimestamp"] = "2026-11-21T12:00:01Z"
    answers[workloads("v1beta2")] = [new, old]
    found = (await read()).workload
    assert found is not None and found.waiting == WAITS["message"]


EVICTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "for another"}
RESERVED = {"type": "QuotaReserved", "status": "True", "reason": "QuotaReserved", "message": "ok"}
CHECKS = [
    {"name": "first", "state": "Ready", "message": ""},
    {"name": "nodes", "state": "Pending", "message": "waits for two nodes"},
]
# Objects as the real controllers of both versions write them, apart from what is not read.
PODSETS = {
    "v1beta1": {
        "priorityClassName": "batch",
        "priorityClassSource": "scheduling.k8s.io/priorityclass",
        "podSets": [{"name": "main", "count": 2}],
    },
    "v1beta2": {
        "priorityClassRef": {"group": "scheduling.k8s.io", "kind": "PriorityClass", "name": "b"},
        "podSets": [{"name": "main", "count": 2, "topologyRequest": {"podIndexLabel": "i"}}],
    },
}


@pytest.mark.parametrize("version", ["v1beta1", "v1beta2"])
@pytest.mark.parametrize(
    ("spec", "conditions", "checks", "expected"),
    [
        ({}, [WAITS], [], Workload(WAITS["message"], None, queue="gpus")),
        ({}, [WAITS, EVICTED], [], Workload(WAITS["message"], "for another", queue="gpus")),
        ({}, [RESERVED], [], Workload(None, None, queue="gpus")),
        (
            {},
            [RESERVED],
            CHECKS,
            Workload("admission check nodes is Pending: waits for two nodes", None, queue="gpus"),
        ),
        (
            {"active": False},
            [WAITS],
            [],
            Workload(f"the Workload is deactivated: {WAITS['message']}", None, queue="gpus"),
        ),
        ({"queueName": ""}, [WAITS], [], Workload(WAITS["message"], None)),
        ({}, [], [], Workload(None, None, queue="gpus")),
    ],
)
def test_both_versions_are_parsed(
    version: str,
    spec: JsonObject,
    conditions: list[JsonObject],
    checks: list[JsonObject],
    expected: Workload,
) -> None:
    raw = {
        "apiVersion": f"kueue.x-k8s.io/{version}",
        "spec": {"queueName": "gpus", **PODSETS[version], **spec},
        "status": {"conditions": conditions, "admissionChecks": checks},
    }
    assert Workload.parse(raw) == expected


def test_a_workload_without_a_status_is_parsed() -> None:
    assert Workload.parse({"metadata": {}}) == Workload(None, None)


# --- Kueue that manages all Jobs ---


def check_job(queue: str | None = None, **settings: object) -> tuple[World, Job]:
    world = World(a_finetune(queueName=queue), a_settings(**settings))
    world.settle()
    (job,) = world.observe().jobs
    assert job.component == names.COMPONENT_PREPARE
    return world, job


async def test_kueue_is_named_if_it_suspended_the_check_of_the_data(answers: Answers) -> None:
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = [
        a_workload({**WAITS, "message": "LocalQueue  doesn't exist"}, queueName="")
    ]
    _, job = check_job()
    said = explain(await read(replace(job, is_suspended=True)), 1)
    assert said.reason == Reason.QUEUED
    assert said.message.startswith("Kueue manages all Jobs and has suspended this one")
    assert "kueue.queuePrepare" in said.message and "spec.queueName" in said.message
    assert said.message.endswith("(Kueue: LocalQueue  doesn't exist)")


@pytest.mark.parametrize(
    ("component", "remedy"),
    [
        (names.COMPONENT_PREPARE, "kueue.queuePrepare"),
        (names.COMPONENT_LOOKUP, "kueue.queuePrepare"),
        (names.COMPONENT_DELETION, "finetune.dev/queue"),
        (names.COMPONENT_TRAIN, "spec.queueName"),
    ],
)
def test_each_job_has_its_remedy(component: str, remedy: str) -> None:
    _, job = check_job()
    suspended = replace(job, component=component, is_suspended=True)
    assert remedy in explain(replace(suspended, workload=Workload(None, None)), 1).message
    maybe = explain(replace(suspended, may_have_workload=True), 1).message
    assert remedy in maybe and "probably by Kueue" in maybe
    assert explain(suspended, 1) == messages.SUSPENDED_BY_OTHER


async def test_without_permissions_kueue_is_the_probable_cause(answers: Answers) -> None:
    serve(answers, "v1beta2")
    _, job = check_job()
    found = await read(replace(job, is_suspended=True), may_read=False)
    assert found.may_have_workload
    assert "kueue.enabled" in explain(found, 1).message
    assert not [path for path, _ in answers.asked if "namespaces" in path]


@pytest.mark.parametrize("may_read", [True, False])
async def test_without_kueue_somebody_else_suspended_the_job(
    answers: Answers, may_read: bool
) -> None:
    _, job = check_job()
    found = await read(replace(job, is_suspended=True), may_read=may_read)
    assert explain(found, 1) == messages.SUSPENDED_BY_OTHER


async def test_a_job_that_kueue_does_not_manage_was_suspended_by_somebody_else(
    answers: Answers,
) -> None:
    serve(answers, "v1beta2")
    _, job = check_job()
    found = await read(replace(job, is_suspended=True))
    assert explain(found, 1) == messages.SUSPENDED_BY_OTHER


async def test_a_default_queue_of_the_namespace_is_named(answers: Answers) -> None:
    """Kueue puts Jobs without a queue in the LocalQueue `default`, if the namespace has one."""
    serve(answers, "v1beta2")
    answers[workloads("v1beta2")] = [a_workload(WAITS, queueName="default")]
    answers[pending("v1beta2", "default")] = IN_PLACE_TWO
    _, job = check_job()
    found = await read(replace(job, is_suspended=True))
    assert explain(found, 1) == messages.queued("default", 2, WAITS["message"])


def suspends(world: World, name: str) -> None:
    world.jobs[name]["spec"]["suspend"] = True


def test_the_status_names_kueue_until_the_check_is_admitted() -> None:
    world, job = check_job("gpus", kueueQueuePrepare=True, kueueEnabled=True)
    assert (job.queue, job.is_suspended) == ("gpus", True)
    world.workload = Workload("insufficient unused quota", None, position=3, queue="gpus")
    world.settle()
    expected = messages.queued("gpus", 3, "insufficient unused quota")
    assert (world.status.reason, world.status.message) == (expected.reason, expected.message)
    world.admit("prepare")
    world.settle()
    assert world.status.message == messages.CHECKING_DATA.message


def test_a_check_that_the_queue_evicts_is_not_called_a_failure() -> None:
    world, job = check_job("gpus", kueueQueuePrepare=True, kueueEnabled=True)
    world.admit("prepare")
    world.settle()
    suspends(world, job.name)
    world.end_pod("prepare", 0, 143, failed("Preempted"))
    world.workload = Workload("insufficient unused quota", "Preempted", queue="gpus")
    world.settle()
    assert (
        world.status.message == messages.queued("gpus", None, "insufficient unused quota").message
    )
    world.admit("prepare")
    world.workload = None
    world.settle()
    assert world.status.message == messages.CHECKING_DATA.message


def made_by(world: World) -> list[JsonObject]:
    return [item for item in world.created if item["kind"] == "Job"]


@pytest.mark.parametrize("is_option_set", [True, False])
@pytest.mark.parametrize("queue", ["gpus", None])
def test_the_option_puts_the_check_in_the_queue_of_the_fine_tune(
    queue: str | None, is_option_set: bool
) -> None:
    world, _ = check_job(queue, kueueQueuePrepare=is_option_set)
    (made,) = made_by(world)
    is_queued = bool(queue) and is_option_set
    assert made["metadata"]["labels"].get(names.LABEL_KUEUE_QUEUE) == (queue if is_queued else None)
    assert made["spec"].get("suspend", False) is is_queued


def test_a_lookup_is_in_the_queue_as_well() -> None:
    settings = a_settings(kueueQueuePrepare=True, kueueEnabled=True)
    world = World(a_finetune(queueName="gpus"), settings)
    world.settle()
    world.admit("prepare")
    world.until_training()
    world.remove_job(world.job("a1"))
    world.settle()
    lookup = made_by(world)[-1]
    assert lookup["metadata"]["labels"][names.LABEL_COMPONENT] == names.COMPONENT_LOOKUP
    assert lookup["metadata"]["labels"][names.LABEL_KUEUE_QUEUE] == "gpus"
    assert lookup["spec"]["suspend"] is True


# --- Models, whose deletion Job is queued as well ---


def a_deleted_model(queue: str | None) -> Model:
    world, result = World(a_finetune(queueName=queue)).until_training(), trained().trained
    assert result is not None
    manifest = build_model(world.finetune, world.status.resolved, result)
    meta = {
        **manifest["metadata"],
        "uid": "99999999-8888",
        "finalizers": [names.FINALIZER_MODEL],
        "deletionTimestamp": "2026-11-21T12:00:00Z",
    }
    spec = manifest["spec"] | {"deletionPolicy": "Delete"}
    return Model.parse({**manifest, "metadata": meta, "spec": spec})


@pytest.mark.parametrize("is_option_set", [True, False])
@pytest.mark.parametrize("queue", ["gpus", None])
def test_the_model_remembers_the_queue_for_the_deletion_of_its_files(
    queue: str | None, is_option_set: bool
) -> None:
    settings = a_settings(kueueQueuePrepare=is_option_set)
    plan = decide_model(ObservedModel(a_deleted_model(queue)), settings, NOW)
    assert plan.create is not None
    is_queued = bool(queue) and is_option_set
    labels = plan.create["metadata"]["labels"]
    assert labels.get(names.LABEL_KUEUE_QUEUE) == (queue if is_queued else None)
    assert plan.create["spec"].get("suspend", False) is is_queued


async def test_kueue_is_named_if_it_suspended_the_deletion(answers: Answers) -> None:
    serve(answers, "v1beta2")
    model, settings = a_deleted_model(None), a_settings()
    job = decide_model(ObservedModel(model), settings, NOW).create
    assert job is not None
    uid = {"uid": "the-job", "resourceVersion": "1"}
    job = {**job, "metadata": job["metadata"] | uid, "spec": job["spec"] | {"suspend": True}}
    answers[f"{JOBS}/{job['metadata']['name']}"] = job
    answers[PODS] = []
    answers[workloads("v1beta2")] = [a_workload(WAITS, queueName="")]
    answers[JOBS] = {}  # a dry run of the creation: the namespace does not terminate
    async with Client() as client:
        kueue = Kueue(client, may_read=True)
        found = await observe_model(
            *(client, settings, kueue, model, (Job.parse(job, []),)), rare=RareReads()
        )
    status = decide_model(found, settings, NOW).status
    (condition,) = status.conditions
    assert condition.message.startswith("Kueue manages all Jobs")
    assert "finetune.dev/queue" in condition.message


# --- Topology-aware scheduling ---

TOPOLOGY = {
    "kueue.x-k8s.io/podset-required-topology": "cloud.provider.com/topology-rack",
    "kueue.x-k8s.io/podset-preferred-topology": "cloud.provider.com/topology-block",
    "kueue.x-k8s.io/podset-unconstrained-topology": "true",
    "kueue.x-k8s.io/podset-slice-required-topology": "cloud.provider.com/topology-host",
    "kueue.x-k8s.io/podset-slice-size": "2",
    "kueue.x-k8s.io/podset-group-name": "trainers",
}


def test_topology_annotations_of_the_runtime_are_in_the_pod_template_of_the_training() -> None:
    """Kueue reads them in the pod template of the Job, not in the metadata of the Job."""
    raw = {**a_settings().runtimes[0].to_dict(), "podAnnotations": TOPOLOGY}
    world = World(a_finetune(queueName="gpus"), a_settings(runtimes=[raw])).until_training()
    prepare, train = made_by(world)
    assert train["spec"]["template"]["metadata"]["annotations"].items() >= TOPOLOGY.items()
    assert not TOPOLOGY.keys() & train["metadata"].get("annotations", {}).keys()
    # One pod on a CPU has no topology.
    assert (
        not TOPOLOGY.keys() & prepare["spec"]["template"]["metadata"].get("annotations", {}).keys()
    )
