"""Namespaces with Models are deleted, with the real namespace controller and garbage collector."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from finetune_api import names
from finetune_api.outcome import Deleted, Outcome
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.integration.test_model_deletion import HELD, NAME, a_model, finalizers
from tests.integration.test_operator import TWO_NODES
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import a_settings, addressed, prepared, trained

pytestmark = [pytest.mark.integration, pytest.mark.slow]

HOME = "operators"  # a namespace that stays
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def admin(tools: Path) -> Iterator[Kubectl]:
    with ControlPlane(controller_manager=True) as plane:
        made = Kubectl(str(plane.kubectl), str(plane.kubeconfig))
        for name in ("finetunes.yaml", "models.yaml"):
            made.apply_file(ROOT / "crds" / name)
        crds = ("crd/finetunes.finetune.dev", "crd/models.finetune.dev")
        made("wait", "--for=condition=Established", *crds)
        yield made


def a_namespace(admin: Kubectl, name: str = "") -> Kubectl:
    name = name or f"going-{next(_numbers)}"
    admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return admin.within(name)


class ClusterOperator(Operator):
    """An operator of the whole cluster, with the chart's ClusterRole."""

    def _install_role(self, helm: Path) -> None:
        chart = str(ROOT / "charts" / "finetune-operator")
        command = [str(helm), "template", "finetune-operator", chart, "-n", self.team.namespace]
        command += ["--set", "crds.install=false,clusterWide=true,pods.networkPolicy.enabled=true"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wanted = {"ClusterRole", "ClusterRoleBinding", "ServiceAccount"}
        objects = [it for it in yaml.safe_load_all(done.stdout) if it and it["kind"] in wanted]
        self.team.apply(*objects)

    def _write_settings(self, changes: dict[str, Any]) -> None:
        changes |= {"namespace": "", "podNetwork": {}}
        settings = a_settings(pollSeconds=0.5, **changes)
        given = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
        (self.folder / "settings.yaml").write_text(yaml.safe_dump(given))


@pytest.fixture(scope="module")
def cluster_operator(
    admin: Kubectl, tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    home = a_namespace(admin, HOME)
    folder = tmp_path_factory.mktemp("cluster-operator")
    made = ClusterOperator(home, tools / "helm", folder, deletesModels=True)
    made.start()
    yield made
    made.stop()


def is_gone(team: Kubectl) -> bool:
    try:
        team("get", "namespace", team.namespace)
    except RefusedError as error:
        return "not found" in str(error)
    return False


def explain(team: Kubectl, operator: Operator) -> str:
    return team("get", "namespace,models,jobs,pods", "-o", "yaml")[-6000:] + operator.logs()


def hold(team: Kubectl, operator: Operator) -> None:
    team.apply(a_model(team, "Delete"))
    until(lambda: finalizers(team) == HELD, 20, operator.logs)


def an_operator_pod() -> dict[str, Any]:
    """A pod that does not end before the test says so, as if it were the operator's own."""
    meta = {"name": "operator", "finalizers": ["example.com/running"]}
    spec = {"containers": [{"name": "operator", "image": "operator"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def test_a_namespace_ends_together_with_the_operator_in_it(
    admin: Kubectl, tools: Path, tmp_path: Path
) -> None:
    """Kubernetes ends the pods first, so that the operator never sees the Model's deletion.

    This is the first test, because an operator of the whole cluster would add the finalizer again.
    """
    team = a_namespace(admin)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    team.apply(account)
    operator = Operator(team, tools / "helm", tmp_path, deletesModels=True)
    operator.start()
    try:
        hold(team, operator)
        team.apply(an_operator_pod())
        team("delete", "namespace", team.namespace, "--wait=false")
        until(lambda: "deletionTimestamp" in team.get("pod", "operator")["metadata"], 30)
        model = team.get("model", NAME)["metadata"]
        assert "deletionTimestamp" not in model
        assert names.FINALIZER_MODEL in model["finalizers"]
    finally:
        operator.stop()  # SIGTERM
    assert finalizers(team) == []  # nothing of ours keeps the namespace any more
    assert f"namespace {team.namespace} is terminating" in operator.logs()


def start_deletion(team: Kubectl) -> dict[str, Any]:
    """The deletion Job of the Model."""
    team("delete", "model", NAME, "--wait=false")
    return Kubelet(team).job("-delete")


def delete_nothing(_: Kubectl) -> None:
    """The Model is deleted with its namespace."""


def lack_a_secret(team: Kubectl) -> None:
    """The deletion runs: the real Job controller makes a pod, and its Secret is gone."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "finetune"}}
    team.apply(account)
    start_deletion(team)
    until(lambda: team.list("pods"), 30)
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s3" not found'}
    state = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
    states = [state | {"state": {"waiting": waiting}}]
    name = team.list("pods")[0]["metadata"]["name"]
    team.patch_status("pod", name, {"containerStatuses": states})
    until(lambda: team.get("model", NAME).get("status"), 30)


def lack_an_account(team: Kubectl) -> None:
    """The deletion runs: the real Job controller cannot make a pod, which needs the account."""
    start_deletion(team)
    until(lambda: "not found" in team("get", "events"), 30)


def keep_the_job(team: Kubectl) -> None:
    """Another finalizer keeps the deletion Job, as a broken node keeps its pods."""
    job = start_deletion(team)["metadata"]["name"]
    patch = '{"metadata": {"finalizers": ["example.com/other"]}}'
    team("patch", "job", job, "--type=merge", "-p", patch)


def release_the_job(team: Kubectl) -> None:
    (job,) = team.list("jobs")
    patch = '{"metadata": {"finalizers": null}}'
    team("patch", "job", job["metadata"]["name"], "--type=merge", "-p", patch)


VARIANTS: tuple[Callable[[Kubectl], None], ...] = (
    delete_nothing,
    lack_a_secret,
    lack_an_account,
    keep_the_job,
)


def test_no_namespace_is_kept_by_its_models(admin: Kubectl, cluster_operator: Operator) -> None:
    """All at once: a namespace takes the controller several seconds."""
    operator = cluster_operator
    teams = {variant: a_namespace(admin) for variant in VARIANTS}
    for variant, team in teams.items():
        hold(team, operator)
        variant(team)
    absent = a_namespace(admin)  # the operator is away while it is deleted
    hold(absent, operator)
    operator.kill()
    admin("delete", "namespace", absent.namespace, "--wait=false")
    until(lambda: "deletionTimestamp" in absent.get("model", NAME)["metadata"], 30)
    operator.start()
    for team in teams.values():
        admin("delete", "namespace", team.namespace, "--wait=false")
    keeping = teams.pop(keep_the_job)
    until(lambda: keeping.list("models") == [], 60, lambda: explain(keeping, operator))
    release_the_job(keeping)
    for team in (*teams.values(), keeping, absent):
        until(lambda team=team: is_gone(team), 60, lambda team=team: explain(team, operator))
        log = (operator.folder / "operator.log").read_text()
        assert f"namespace {team.namespace} is terminating" in log
        assert f"aws s3 rm --recursive s3://bucket/out/{team.namespace}/tone-11111111/" in log


def pods_of(team: Kubectl, ending: str, count: int = 1) -> list[str]:
    """The pods that the real Job controller has made for a Job."""
    job = Kubelet(team).job(ending)["metadata"]["name"]
    selector = f"batch.kubernetes.io/job-name={job}"
    until(lambda: len(team.list("pods", selector)) == count, 30)
    pods = [
        (it["metadata"]["labels"], it["metadata"]["name"]) for it in team.list("pods", selector)
    ]
    index = "batch.kubernetes.io/job-completion-index"
    return [name for _, name in sorted(pods, key=lambda pod: pod[0].get(index, ""))]


def start_training(team: Kubectl, name: str, **spec: Any) -> list[str]:
    """The pods of a FineTune's first attempt."""
    team.apply(finetune(name, **TWO_NODES, **spec))
    uid = team.get("finetune", name)["metadata"]["uid"][:8]
    (pod,) = pods_of(team, f"{uid}-prepare")
    Kubelet(team).end(pod, 0, prepared().to_termination_message())
    return pods_of(team, f"{uid}-a1", 2)


def list_ours(team: Kubectl) -> list[str]:
    """What the operator has made in the namespace, and whatever belongs to it."""
    kinds = "finetunes,models,jobs,pods,services,endpoints,endpointslices,networkpolicies"
    return team("get", kinds, "-o", "name").split()


def test_nothing_is_left_of_finetunes_and_models_that_are_deleted(
    admin: Kubectl, cluster_operator: Operator
) -> None:
    team, operator = a_namespace(admin), cluster_operator
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "finetune"}}
    team.apply(account)
    kubelet = Kubelet(team)
    team.apply(finetune("checks", **TWO_NODES))
    start_training(team, "background")
    start_training(team, "foreground")
    first, second = start_training(team, "succeeds", ttlSecondsAfterFinished=1)
    kubelet.end(second, 0)
    task = team.get("pod", first)["spec"]
    kubelet.end(first, 0, addressed(trained().to_termination_message(), task))
    team.wait_state("succeeds", "succeeded")
    (model,) = [item["metadata"]["name"] for item in team.list("models")]
    patch = '{"spec": {"deletionPolicy": "Delete"}}'
    team("patch", "model", model, "--type=merge", "-p", patch)
    until(lambda: team.get("model", model)["metadata"].get("finalizers") == HELD, 20)
    assert "networkpolicy.networking.k8s.io" in "".join(list_ours(team))

    team("delete", "finetune", "checks", "background", "--wait=false")
    team("delete", "finetune", "foreground", "--cascade=foreground", "--wait=false")
    team("delete", "model", model, "--wait=false")
    (pod,) = pods_of(team, "-delete")
    kubelet.end(pod, 0, Outcome(deleted=Deleted(files=3)).to_termination_message())
    until(lambda: team.list("models") == [], 30, operator.logs)
    uid = team.get("finetune", "succeeds")["metadata"]["uid"][:8]
    until(lambda: not any(uid in name for name in list_ours(team) if "job" in name), 30)  # TTL
    team("delete", "finetune", "succeeds", "--wait=false")
    until(lambda: list_ours(team) == [], 60, lambda: f"{list_ours(team)} {operator.logs()}")
