"""The operator next to the real Kueue, whose controller, webhooks, and aggregated API run here.

There is no node. KUEUE_VARIANTS chooses the versions, with commas between them: those of
`python3 -m devcluster kueue --help`. The usual one is 0.19, in which v1beta1 ends during the test.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.controlplane import ControlPlane
from devcluster.kueue import USUAL
from finetune_api import names
from finetune_api.wire import JsonObject
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.support import audit
from tests.support.hosted_kueue import HostedKueue
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import a_settings, prepared

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="Kueue runs in a root folder of its own"),
    pytest.mark.timeout(1800),  # it may build Kueue first
]

VARIANTS = os.environ.get("KUEUE_VARIANTS", USUAL).split(",")
PATIENCE = 120  # seconds, of a machine that does much else
# Kueue and the operator look again after a moment instead of a minute.
IMPATIENT = """
from finetune_operator.core import decide
from finetune_operator.core.attempts import training
from finetune_operator.kube import discovery
decide.RECHECK_SECONDS = training.PENDING_SECONDS = 0.5
discovery.ABSENT_SECONDS = discovery.DOUBT_SECONDS = 0.5
"""
QUEUED = {"model": "ada", "queueName": "gpus", "resources": {"nodes": 1, "gpusPerNode": 0}}
READ_KUEUE = (
    {"apiGroups": ["kueue.x-k8s.io"], "resources": ["workloads"], "verbs": ["list"]},
    {
        "apiGroups": ["visibility.kueue.x-k8s.io"],
        "resources": ["localqueues/pendingworkloads"],
        "verbs": ["get"],
    },
)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def plane(variant: str) -> Iterator[ControlPlane]:
    crds = [ROOT / "crds" / name for name in ("finetunes.yaml", "models.yaml")]
    with ControlPlane(crds=crds) as made:
        yield made


@pytest.fixture(scope="module")
def kueue(
    variant: str, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HostedKueue]:
    folder = tmp_path_factory.mktemp("kueue")
    with HostedKueue(plane, variant, folder).running() as made:
        yield made


def a_team(plane: ControlPlane, name: str) -> Kubectl:
    admin = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin.within(name)


def an_operator(team: Kubectl, tools: Path, folder: Path, **settings: Any) -> Operator:
    made = Operator(team, tools / "helm", folder, first=IMPATIENT, kueueEnabled=True, **settings)
    made.allow(*READ_KUEUE)
    made.start()
    return made


def a_queue(team: Kubectl, version: str, *, pods: int) -> list[JsonObject]:
    """A LocalQueue `gpus` with a quota of pods that check data."""
    api, name = f"kueue.x-k8s.io/{version}", team.namespace
    quotas = [{"name": "cpu", "nominalQuota": pods}, {"name": "memory", "nominalQuota": "64Gi"}]
    flavor = {"name": name, "resources": quotas}
    return [
        {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": name}},
        {
            "apiVersion": api,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},
                "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": [flavor]}],
            },
        },
        {
            "apiVersion": api,
            "kind": "LocalQueue",
            "metadata": {"name": "gpus", "namespace": name},
            "spec": {"clusterQueue": name},
        },
    ]


def wait_message(team: Kubectl, operator: Operator, name: str, *words: str) -> str:
    message = ""

    def says() -> bool:
        nonlocal message
        status = team.status(name)
        message = status.get("message", "")
        assert status.get("state") != "failed", message
        return all(word in message for word in words)

    until(says, PATIENCE, lambda: f"{name}: {message} {operator.logs()}")
    return message


def versions_read(plane: ControlPlane, operator: Operator, group: str) -> set[str]:
    """The versions in which the operator has successfully read namespaced objects of a group."""
    return {
        event["objectRef"]["apiVersion"]
        for event in audit.events(plane.audit_log, 0)
        if event["user"].get("username") == operator.user
        and event.get("objectRef", {}).get("apiGroup") == group
        and event["objectRef"].get("namespace")
        and event.get("responseStatus", {}).get("code") == 200
    }


def test_kueue_is_found_when_it_is_installed_and_in_the_version_that_is_left(
    request: pytest.FixtureRequest, plane: ControlPlane, tools: Path, tmp_path: Path
) -> None:
    """The chart's value is the former default, as `helm upgrade --reuse-values` keeps it."""
    team = a_team(plane, "late")
    settings = {"kueueVersion": "v1beta1", "kueueQueuePrepare": True}
    operator = an_operator(team, tools, tmp_path, **settings)
    try:
        team.apply(finetune("first", **QUEUED))
        waiting = wait_message(team, operator, "first", "waiting in queue gpus")
        assert waiting == "the Job is waiting in queue gpus"

        kueue: HostedKueue = request.getfixturevalue("kueue")
        kueue.apply(*a_queue(team, "v1beta1", pods=0))
        wait_message(team, operator, "first", "in queue gpus at position 1: ", "quota")
        newest = kueue.variant.served[0]
        groups = ("kueue.x-k8s.io", "visibility.kueue.x-k8s.io")
        for group in groups:  # its versions are not served from the same moment on
            assert versions_read(plane, operator, group) & {"v1beta1", newest}

        if newest != "v1beta1":
            kueue.end_v1beta1()
        team.apply(finetune("second", **QUEUED))
        wait_message(team, operator, "second", "in queue gpus at position 2")
        for group in groups:
            assert newest in versions_read(plane, operator, group)

        kueue.apply(*a_queue(team, newest, pods=1))
        wait_message(team, operator, "first", "the prepare Job is checking the data")
        (job,) = [item for item in team.list("jobs") if "first" in item["metadata"]["name"]]
        assert job["spec"]["suspend"] is False
        wait_message(team, operator, "second", "in queue gpus at position 1")
    finally:
        operator.stop()


def test_kueue_that_manages_all_jobs_is_named_and_a_queue_is_the_remedy(
    kueue: HostedKueue, plane: ControlPlane, tools: Path, tmp_path: Path
) -> None:
    team = a_team(plane, "managed")
    kueue.apply(*a_queue(team, kueue.served(), pods=1))
    operator = an_operator(team, tools, tmp_path)
    try:
        team.apply(finetune("tone", **QUEUED))
        said = wait_message(team, operator, "tone", "Kueue manages all Jobs", "(Kueue: ")
        assert "kueue.queuePrepare" in said
        (job,) = team.list("jobs")
        assert job["spec"]["suspend"] is True  # by the webhook of Kueue
        assert names.LABEL_KUEUE_QUEUE not in job["metadata"]["labels"]

        name = job["metadata"]["name"]
        team("label", "job", name, f"{names.LABEL_KUEUE_QUEUE}=gpus")
        wait_message(team, operator, "tone", "the prepare Job is checking the data")
    finally:
        operator.stop()


def test_kueue_reads_the_topology_annotations_of_the_runtime(
    kueue: HostedKueue, plane: ControlPlane, tools: Path, tmp_path: Path
) -> None:
    team = a_team(plane, "topology")
    kueue.apply(*a_queue(team, kueue.served(), pods=1))
    wanted = {"kueue.x-k8s.io/podset-preferred-topology": "cloud.provider.com/topology-block"}
    runtime = a_settings().runtimes[0].to_dict() | {"podAnnotations": wanted}
    settings = {"kueueQueuePrepare": True, "runtimes": [runtime]}
    operator, kubelet = an_operator(team, tools, tmp_path, **settings), Kubelet(team)
    try:
        team.apply(finetune("tone", **QUEUED))
        job = kubelet.job("-prepare", PATIENCE)
        (pod,) = kubelet.start_pods(job)
        kubelet.end(pod, 0, prepared().to_termination_message())
        train = kubelet.job("-a1", PATIENCE)
        selector = f"{names.LABEL_KUEUE_JOB_UID}={train['metadata']['uid']}"
        until(lambda: team.list("workloads.kueue.x-k8s.io", selector), PATIENCE, kueue.logs)
        (workload,) = team.list("workloads.kueue.x-k8s.io", selector)
        (podset,) = workload["spec"]["podSets"]
        assert podset["topologyRequest"]["preferred"] == "cloud.provider.com/topology-block"
    finally:
        operator.stop()
