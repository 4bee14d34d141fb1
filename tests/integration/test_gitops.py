"""GitOps against a real API server: repeated applies never train twice."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.integration.test_operator import TWO_NODES, prepare
from tests.support.audit import writes_by
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import trained

pytestmark = pytest.mark.integration

EXAMPLES = ROOT / "examples/gitops"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


def sync(team: Kubectl, manager: str, *objects: dict[str, Any]) -> str:
    """Apply on the server side, as GitOps tools do."""
    return team(
        "apply", "--server-side", f"--field-manager={manager}", "-f", "-",
        stdin=yaml.safe_dump_all(objects),
    )  # fmt: skip


def version(team: Kubectl) -> str:
    return str(team.get("finetune", "tone")["metadata"]["resourceVersion"])


def finish(team: Kubectl, kubelet: Kubelet) -> dict[str, Any]:
    prepare(kubelet)
    first, second = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(first, second)
    team.wait_state("tone", "running")
    kubelet.end(first, 0, trained().to_termination_message())
    kubelet.end(second, 0)
    return team.wait_state("tone", "succeeded")


def test_two_managers_share_a_finetune_and_neither_undoes_the_other(team: Kubectl) -> None:
    manifest = finetune("tone", **TWO_NODES)
    sync(team, "argocd", manifest)
    person = {**manifest, "spec": {"suspend": True}}
    sync(team, "person", person)
    before = version(team)
    sync(team, "argocd", manifest)
    sync(team, "person", person)
    spec = team.get("finetune", "tone")["spec"]
    assert (spec["suspend"], spec["model"]) == (True, "ada")
    assert version(team) == before
    with pytest.raises(RefusedError, match="conflict"):
        sync(team, "other", {**manifest, "spec": {"model": "curie"}})
    with pytest.raises(RefusedError, match="model cannot be changed once created"):
        team("apply", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-",
             stdin=yaml.safe_dump({**manifest, "spec": {"model": "curie"}}))  # fmt: skip


def test_a_resync_at_any_time_changes_nothing_and_trains_nothing_twice(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    manifest = finetune("tone", **TWO_NODES)
    sync(team, "argocd", manifest)
    uid = team.get("finetune", "tone")["metadata"]["uid"]
    prepare_job = kubelet.job("-prepare")
    sync(team, "argocd", manifest)
    assert kubelet.job("-prepare")["metadata"]["uid"] == prepare_job["metadata"]["uid"]
    status = finish(team, kubelet)
    until(lambda: len(team.list("events")) >= 6, 10)
    log = Path(control_plane.audit_log)
    writes = writes_by(log, operator.user, team.namespace)
    before = version(team)

    sync(team, "argocd", manifest)
    sync(team, "kustomize-controller", manifest)
    assert team.get("finetune", "tone")["metadata"]["generation"] == 1
    # A person's apply, and a tool's own label and annotation, are writes of the object.
    team.apply(manifest)
    marked = {
        **manifest,
        "metadata": {"name": "tone", "labels": {"argocd.argoproj.io/instance": "x"}},
    }
    team.apply(marked)
    assert version(team) != before
    # The operator looks at another FineTune afterwards, so it has seen all of the above.
    team.apply(finetune("probe", model="gpt5"))
    team.wait_state("probe", "failed")
    operator.stop()
    operator.start()
    team.apply(finetune("probe-2", model="gpt5"))
    team.wait_state("probe-2", "failed")
    now = team.get("finetune", "tone")
    assert (now["metadata"]["uid"], now["status"]) == (uid, status)
    jobs = [job["metadata"]["name"] for job in team.list("jobs")]
    assert sorted(name.rpartition("-")[2] for name in jobs) == ["a1", "prepare"]
    after = writes_by(log, operator.user, team.namespace)
    assert after["create jobs"] == writes["create jobs"] == 2
    assert after["create models"] == 1


def test_the_jobs_of_a_finished_finetune_may_be_pruned(
    team: Kubectl, operator: Operator, kubelet: Kubelet
) -> None:
    manifest = finetune("tone", **TWO_NODES)
    sync(team, "argocd", manifest)
    status = finish(team, kubelet)
    team("delete", "jobs", "--all", "--wait=false")
    sync(team, "argocd", manifest)
    team.apply(finetune("probe", model="gpt5"))
    team.wait_state("probe", "failed")
    assert team.status("tone") == status
    alive = [job for job in team.list("jobs") if "deletionTimestamp" not in job["metadata"]]
    assert alive == []


def test_conditions_say_done_to_kubectl_wait_and_kstatus(
    team: Kubectl, operator: Operator, kubelet: Kubelet
) -> None:
    sync(team, "argocd", finetune("tone", **TWO_NODES))
    team.wait_state("tone", "pending")
    assert kstatus(team.get("finetune", "tone")) == "InProgress"
    finish(team, kubelet)
    assert kstatus(team.get("finetune", "tone")) == "Current"
    team("wait", "--for=condition=Ready", "finetune/tone", "--timeout=5s")
    sync(team, "argocd", finetune("wrong", model="gpt5"))
    team.wait_state("wrong", "failed")
    assert kstatus(team.get("finetune", "wrong")) == "Failed"


def kstatus(thing: dict[str, Any]) -> str:
    """The rules of Flux and `kubectl apply --wait` for objects of any kind."""
    status = thing.get("status", {})
    if status.get("observedGeneration") != thing["metadata"]["generation"]:
        return "InProgress"
    turned = {item["type"]: item["status"] for item in status.get("conditions", [])}
    if turned.get("Stalled") == "True":
        return "Failed"
    if turned.get("Reconciling") == "True":
        return "InProgress"
    return "Current" if turned.get("Ready") == "True" else "InProgress"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_the_api_server_accepts_the_examples(team: Kubectl, path: Path) -> None:
    """This server lacks the kinds of Argo CD, Flux, and kustomize: those files are only parsed."""
    theirs = ("argoproj.io", "toolkit.fluxcd.io", "kustomize.config.k8s.io")
    for thing in yaml.safe_load_all(path.read_text()):
        if thing["apiVersion"].split("/")[0].endswith(theirs):
            assert thing["kind"]
            continue
        thing["metadata"].pop("namespace", None)
        team("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(thing))


def test_kustomize_builds_the_repository_of_finetunes(team: Kubectl) -> None:
    built = list(yaml.safe_load_all(team("kustomize", str(EXAMPLES / "finetunes"))))
    assert [thing["metadata"]["namespace"] for thing in built] == ["ml"]


class Weekly:
    """The example's CronJob. Its script runs with the ServiceAccount of its pod."""

    def __init__(self, team: Kubectl, folder: Path) -> None:
        things = list(yaml.safe_load_all((EXAMPLES / "weekly/cronjob.yaml").read_text()))
        team.apply(*[thing for thing in things if thing["kind"] != "CronJob"])
        (job,) = [thing for thing in things if thing["kind"] == "CronJob"]
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        self.command = [*container["command"], *container["args"]]
        self.env = {item["name"]: item["value"] for item in container["env"]}
        config = yaml.safe_load(Path(team.kubeconfig).read_text())
        token = team("create", "token", pod["serviceAccountName"]).strip()
        config["users"] = [{"name": "weekly", "user": {"token": token}}]
        for context in config["contexts"]:
            context["context"] |= {"user": "weekly", "namespace": team.namespace}
        (folder / "kubeconfig").write_text(yaml.safe_dump(config))
        path = f"{Path(team.binary).parent}:{os.environ['PATH']}"
        self.env |= {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}

    def run(self) -> str:
        done = subprocess.run(
            self.command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def weekly(team: Kubectl, tmp_path: Path) -> Iterator[Weekly]:
    yield Weekly(team, tmp_path)


def a_model(name: str, suffix: str) -> dict[str, Any]:
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {
            "id": f"curie:ft-team:{suffix}-2026-11-14-03-00-00",
            "uri": "s3://bucket/out/model",
            "base": "curie",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
        },
    }


def test_the_weekly_job_starts_from_the_base_and_only_once_a_week(
    team: Kubectl, weekly: Weekly
) -> None:
    weekly.run()
    (made,) = team.list("finetunes")
    assert made["spec"]["model"] == "curie"
    assert made["metadata"]["name"].startswith("support-weekly-20")
    week = made["metadata"]["name"].removeprefix("support-weekly-")
    assert made["spec"]["trainingFile"] == f"s3://acme/support/{week}.jsonl"
    assert "already exists" in weekly.run()
    assert len(team.list("finetunes")) == 1


def test_the_weekly_job_trains_on_old_examples_as_well(team: Kubectl, weekly: Weekly) -> None:
    weekly.env["OLD"] = "s3://acme/support/old.jsonl"
    weekly.run()
    (made,) = team.list("finetunes")
    week = made["metadata"]["name"].removeprefix("support-weekly-")
    assert made["spec"]["trainingFiles"] == [
        {"uri": "s3://acme/support/old.jsonl", "weight": 3},
        {"uri": f"s3://acme/support/{week}.jsonl", "weight": 1},
    ]


def test_the_weekly_job_goes_on_from_the_newest_model_of_its_series(
    team: Kubectl, weekly: Weekly
) -> None:
    mine = a_model("mine", "support-weekly")
    team.apply(mine, a_model("other", "tone"), a_model("another", "my-support-weekly"))
    weekly.run()
    (made,) = team.list("finetunes")
    assert made["spec"]["model"] == mine["spec"]["id"]
