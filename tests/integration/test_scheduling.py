"""Waiting and disrupted pods, with the real Job controller and scheduler."""

import itertools
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from devcluster import gotools
from devcluster.controlplane import ControlPlane
from finetune_api.names import Reason
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed, prepared

pytestmark = [pytest.mark.integration, pytest.mark.slow]

GPU_PODS = {"model": "ada", "resources": {"nodes": 2, "gpusPerNode": 1}}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    yield from start_scheduler()


def start_scheduler(
    features: Sequence[str] = (), apis: Sequence[str] = ()
) -> Iterator[ControlPlane]:
    """A control plane with controllers, a scheduler, and a node with one GPU, but no kubelet."""
    with ControlPlane(controller_manager=True, features=features, apis=apis) as made:
        config = str(made.kubeconfig)
        command = [str(gotools.binary("kube-scheduler")), "--leader-elect=false"]
        command += [f"--{name}kubeconfig={config}" for name in ("", "authentication-")]
        command += [f"--authorization-kubeconfig={config}", "--secure-port=0"]
        gates = ",".join(f"{name}=true" for name in features)
        command += [f"--feature-gates={gates}"] if gates else []
        log = made.audit_log.with_name("scheduler.log").open("wb")
        scheduler = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            admin = Kubectl(str(made.kubectl), config)
            for name in ("finetunes.yaml", "models.yaml"):
                admin.apply_file(ROOT / "crds" / name)
            crds = ("crd/finetunes.finetune.dev", "crd/models.finetune.dev")
            admin("wait", "--for=condition=Established", *crds)
            add_node(admin)
            yield made
        finally:
            scheduler.kill()
            scheduler.wait()
            log.close()


def add_node(admin: Kubectl, name: str = "node-1", ready: str = "True") -> None:
    """Add the node, or renew its heartbeat: only Kubernetes' controllers handle it."""
    admin.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    amounts = {"cpu": "64", "memory": "256Gi", "pods": "200", "nvidia.com/gpu": "1"}
    condition = {"type": "Ready", "status": ready, "reason": "SaidByTheTest"}
    status = {"capacity": amounts, "allocatable": amounts, "conditions": [condition]}
    admin.patch_status("node", name, status)


@pytest.fixture
def team(plane: ControlPlane) -> Iterator[Kubectl]:
    """A new namespace. After the test, no pod of it holds a GPU, and no Job creates another one."""
    name = f"sched-{next(_numbers)}"
    admin = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    add_node(admin)
    made = admin.within(name)
    yield made
    made("delete", "finetunes,jobs", "--all", "--cascade=orphan")
    end_pods(made)


@pytest.fixture
def operator(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(team, tools / "helm", tmp_path)
    made.allow({"apiGroups": [""], "resources": ["events"], "verbs": ["list"]})
    made.start()
    yield made
    made.stop()


def pods_of(team: Kubectl, ending: str) -> list[dict[str, Any]]:
    """The pods that the real Job controller created."""
    label = "batch.kubernetes.io/job-name"
    return [
        pod
        for pod in team.list("pods")
        if pod["metadata"].get("labels", {}).get(label, "-").endswith(ending)
    ]


@pytest.fixture
def until_training(team: Kubectl, operator: Operator, kubelet: Kubelet) -> Callable[..., None]:
    def go(**spec: Any) -> None:
        team.apply(finetune("tone", **{**GPU_PODS, **spec}))
        until(lambda: pods_of(team, "-prepare"), 30, operator.logs)
        (pod,) = pods_of(team, "-prepare")
        kubelet.end(pod["metadata"]["name"], 0, prepared().to_termination_message())
        until(lambda: kubelet.job("-a1"), 30, operator.logs)

    return go


def end_pods(team: Kubectl) -> None:
    """End pods whose end no kubelet confirms. Some may be gone already."""
    team("delete", "pods", "--all", "--force", "--grace-period=0")


def test_t21_a_rank_that_is_never_scheduled_is_explained_and_ends_at_the_deadline(
    team: Kubectl, operator: Operator, until_training: Callable[..., None]
) -> None:
    until_training()
    words = "1 of 2 pods cannot be scheduled: 0/1 nodes have nvidia.com/gpu free"
    until(lambda: team.status("tone").get("message") == words, 40, lambda: str(team.status("tone")))
    patch = '{"spec": {"pendingDeadlineSeconds": 1}}'
    team("patch", "finetune", "tone", "--type=merge", "-p", patch)
    status = team.wait_state("tone", "failed")
    assert status["error"]["code"] == "DeadlineExceeded"
    assert words in status["error"]["message"]
    assert status["attempts"][0]["reason"] == "Unschedulable"


def test_a_quota_that_refuses_pods_is_named(
    team: Kubectl, operator: Operator, until_training: Callable[..., None]
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"count/pods": "2"}},
    }
    team.apply(quota)
    until(lambda: "used" in team.get("resourcequota", "few").get("status", {}), 20)
    until_training()

    def is_told() -> bool:
        status = team.status("tone")
        return status.get("reason") == "QuotaExceeded"

    until(is_told, 60, lambda: str(team.status("tone")))
    message = team.status("tone")["message"]
    assert message.startswith("1 of 2 pods cannot be created: exceeded quota: few")


def evict(team: Kubectl, victim: str) -> None:
    """As `kubectl drain` does."""
    meta = {"name": victim, "namespace": team.namespace}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta}
    path = f"/api/v1/namespaces/{team.namespace}/pods/{victim}/eviction"
    team("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def taint(team: Kubectl, victim: str) -> None:
    """As a cloud's agent does before it takes a spot node away. The pods do not tolerate it."""
    team("taint", "node", "node-1", "spot=ends:NoExecute")


def outrank(team: Kubectl, victim: str) -> None:
    """Create a pod of a higher priority that needs the whole node: the scheduler preempts."""
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 1000}
    name = f"urgent-{team.namespace}"
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "63"}}}
    team.apply(
        {**priority, "metadata": {"name": name}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "urgent"},
            "spec": {"priorityClassName": name, "containers": [container]},
        },
    )


DRAINS = {"Eviction": evict, "Taint": taint, "Preemption": outrank}
END_REASONS = {"Eviction": "Evicted", "Taint": "NodeLost", "Preemption": "Preempted"}


@pytest.fixture
def untainted(team: Kubectl) -> Iterator[None]:
    yield
    team("patch", "node", "node-1", "--type=merge", "-p", '{"spec": {"taints": null}}')


@pytest.mark.usefixtures("untainted")
@pytest.mark.parametrize("drain", DRAINS)
def test_t18_a_pod_that_a_drain_a_taint_or_the_scheduler_takes_restarts_the_gang_uncounted(
    drain: str,
    team: Kubectl,
    operator: Operator,
    until_training: Callable[..., None],
    kubelet: Kubelet,
) -> None:
    until_training(maxRestarts=0, resources={"nodes": 2, "gpusPerNode": 0, "cpu": "2"})
    for pod in pods_of(team, "-prepare"):
        team("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")

    def placed() -> list[str]:
        found = [pod for pod in pods_of(team, "-a1") if pod["spec"].get("nodeName")]
        return [pod["metadata"]["name"] for pod in found]

    until(lambda: len(placed()) == 2, 30, lambda: str(team.list("pods"))[-2000:])
    kubelet.ready(*placed())
    team.wait_state("tone", "running")
    DRAINS[drain](team, placed()[0])
    until(lambda: len(team.status("tone").get("attempts", [])) == 2, 30, operator.logs)
    first, second = team.status("tone")["attempts"]
    reason = END_REASONS[drain]
    assert (first["reason"], first["counted"], first["node"]) == (reason, False, "node-1")
    assert "endedAt" not in second
    until(lambda: pods_of(team, "-a2"), 30, operator.logs)


@pytest.fixture
def second_node(team: Kubectl) -> Iterator[None]:
    """A second, cordoned node: pods are placed on node-1."""
    add_node(team, "node-2")
    team("cordon", "node-2")
    yield
    add_node(team)
    team("delete", "node", "node-2", "--wait=false")


@pytest.mark.usefixtures("second_node")
def test_t19_a_node_that_is_not_heard_of_any_more_never_has_two_pods_of_a_rank(
    team: Kubectl, operator: Operator, until_training: Callable[..., None], kubelet: Kubelet
) -> None:
    until_training(maxRestarts=0, resources={"nodes": 2, "gpusPerNode": 0})

    def placed(ending: str) -> list[str]:
        """The names of an attempt's pods that have a node. No rank has two."""
        found = pods_of(team, ending)
        ranks = [
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in found
        ]
        assert len(ranks) == len(set(ranks)), ranks
        return [pod["metadata"]["name"] for pod in found if pod["spec"].get("nodeName")]

    until(lambda: len(placed("-a1")) == 2, 30, lambda: str(team.list("pods"))[-2000:])
    lost = placed("-a1")
    kubelet.ready(*lost)
    team.wait_state("tone", "running")
    team("uncordon", "node-2")

    # Nobody hears of node-1. Its pods are to be deleted after 30 s, and nobody confirms that.
    def goes_on() -> bool:
        add_node(team, ready="Unknown")
        add_node(team, "node-2")
        placed("-a1")
        return len(placed("-a2")) == 2

    until(goes_on, 150, lambda: str(team.status("tone")), every=2)
    assert set(placed("-a1")) <= set(lost)
    nodes = {pod["spec"]["nodeName"] for pod in pods_of(team, "-a2")}
    assert nodes == {"node-2"}
    kubelet.ready(*placed("-a2"))
    first, second = team.wait_state("tone", "running")["attempts"]
    assert (first["reason"], first["counted"], first["node"]) == ("NodeLost", False, "node-1")

    # The node is back, and confirms: no pod of the first attempt comes again.
    add_node(team)
    remove_pods(team, "-a1")
    until(lambda: not pods_of(team, "-a1"), 20)
    until(lambda: not [job for job in team.list("jobs") if is_named(job, "-a1")], 30)
    assert len(placed("-a2")) == 2
    assert "endedAt" not in second


@pytest.mark.usefixtures("second_node")
def test_an_attempt_after_one_on_a_node_with_an_old_driver_gets_another_node(
    team: Kubectl, operator: Operator, until_training: Callable[..., None], kubelet: Kubelet
) -> None:
    until_training(maxRestarts=1, resources={"nodes": 1, "gpusPerNode": 1})

    def node(ending: str) -> str | None:
        found = [pod["spec"].get("nodeName") for pod in pods_of(team, ending)]
        return found[0] if found else None

    until(lambda: node("-a1") == "node-1", 30, lambda: str(team.list("pods"))[-2000:])
    team("uncordon", "node-2")
    (pod,) = pods_of(team, "-a1")
    outcome = failed(Reason.DRIVER_TOO_OLD, "the NVIDIA driver of the node (535) is too old")
    kubelet.end(pod["metadata"]["name"], 1, outcome.to_termination_message())
    until(lambda: node("-a2") == "node-2", 60, lambda: str(team.status("tone")))
    first = team.status("tone")["attempts"][0]
    assert (first["reason"], first["counted"], first["node"]) == ("DriverTooOld", True, "node-1")


def is_named(job: dict[str, Any], ending: str) -> bool:
    return str(job["metadata"]["name"]).endswith(ending)


def remove_pods(team: Kubectl, ending: str) -> None:
    """Remove pods whose end no kubelet confirms."""
    for pod in pods_of(team, ending):
        team("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")


def test_t24_a_namespace_goes_in_the_middle_of_the_run(
    team: Kubectl, operator: Operator, until_training: Callable[..., None]
) -> None:
    until_training(scheduling={"nodeSelector": {"no": "where"}})
    until(lambda: len(pods_of(team, "-a1")) == 2, 30)
    for pod in pods_of(team, "-prepare"):
        team("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
    team("delete", "namespace", team.namespace, "--timeout=90s")
    assert operator.process is not None
    assert operator.process.poll() is None
    assert operator.fetch(operator.port, "/healthz")
