"""`list`, `cancel`, `suspend`, `resume`, `doctor`, and completion with a real API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Run
from tests.cli.statuses import status
from tests.support.kubectl import Kubectl, finetune

pytestmark = pytest.mark.integration


def test_list_shows_states_and_chooses(at_team: Run, team: Kubectl) -> None:
    assert "No fine-tunes found in namespace" in at_team("list").stderr
    team.apply(finetune("one", model="ada"), finetune("two"))
    progress = {"step": 1, "steps": 2, "percent": "50 %", "loss": 1.25}
    team.patch_status("finetune", "one", status("running", progress=progress))
    lines = at_team("list").stdout.splitlines()
    assert lines[0].split()[:5] == ["NAME", "STATE", "MODEL", "PROGRESS", "LOSS"]
    assert lines[1].split()[:6] == ["one", "running", "ada", "50", "%", "1.2500"]
    assert lines[2].split()[:3] == ["two", "pending", "curie"]
    found = json.loads(at_team("list", "--state", "running", "-o", "json").stdout)
    assert [item["metadata"]["name"] for item in found["items"]] == ["one"]
    everywhere = at_team("list", "-A").stdout
    assert [team.namespace, "one", "running"] in [it.split()[:3] for it in everywhere.splitlines()]


def test_cancel_suspend_and_resume_change_one_field(at_team: Run, team: Kubectl) -> None:
    team.apply(finetune("a"), finetune("b"))

    def wanted(name: str) -> tuple[bool, bool]:
        spec = team.get("finetune", name)["spec"]
        return bool(spec.get("suspend")), bool(spec.get("cancel"))

    before = team.get("finetune", "a")["metadata"]["generation"]
    assert "is being suspended after a checkpoint" in at_team("suspend", "a").stdout
    assert wanted("a") == (True, False)
    assert "a is already suspended" in at_team("suspend", "a").stdout
    assert at_team("resume", "a").returncode == 0
    assert wanted("a") == (False, False)
    ran = at_team("cancel", "-i", "a", "-i", "nothing", "-i", "b")
    assert (ran.returncode, "there is no fine-tune 'nothing'" in ran.stderr) == (1, True)
    assert wanted("a") == wanted("b") == (False, True)
    assert team.get("finetune", "a")["metadata"]["generation"] == before + 3
    assert "it is being cancelled, which is final" in at_team("resume", "a").stderr
    team.patch_status("finetune", "a", status("cancelled"))
    team.patch_status("finetune", "b", status("succeeded"))
    assert at_team("cancel", "a").returncode == 0
    late = at_team("cancel", "b")
    assert (late.returncode, "cannot cancel b: it has already succeeded" in late.stderr) == (
        1,
        True,
    )


def test_a_user_with_few_permissions_is_told_which_role_to_request(
    at_team: Run, team: Kubectl, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "guest"}}
    rules = [{"apiGroups": ["finetune.dev"], "resources": ["finetunes"], "verbs": ["get", "list"]}]
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "guest"}}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "guest"}
    subject = {"kind": "ServiceAccount", "name": "guest", "namespace": team.namespace}
    team.apply(
        account,
        {**kind, "kind": "Role", "rules": rules},
        {**kind, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
        finetune("tone"),
    )
    team.patch_status("finetune", "tone", status("succeeded", "Fine-tune succeeded"))
    config = yaml.safe_load(Path(team.kubeconfig).read_text())
    config["users"] = [
        {"name": "guest", "user": {"token": team("create", "token", "guest").strip()}}
    ]
    for context in config["contexts"]:
        context["context"]["user"] = "guest"
    (home / "guest").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(home / "guest"))
    refused = at_team("create", "-t", "s3://acme/a")
    assert refused.returncode == 1
    assert "cannot create resource" in refused.stderr
    assert "Role finetune-user" in refused.stderr
    assert at_team("follow", "tone").returncode == 0
    doctor = json.loads(at_team("doctor", "-o", "json").stdout)
    found = {item["check"]: item for item in doctor}
    assert found["permissions"]["level"] == "error"
    assert "create finetunes" in found["permissions"]["detail"]
    assert found["GPUs"]["level"] == found["S3 credentials"]["level"] == "unknown"
    config["users"][0]["user"]["token"] = "wrong"
    (home / "guest").write_text(yaml.safe_dump(config))
    assert "does not accept this login" in at_team("list").stderr


def test_the_doctor_names_what_is_missing_and_its_remedy(
    at_team: Run, team: Kubectl, bucket: str
) -> None:
    found = {
        item["check"]: item
        for item in json.loads(
            at_team("doctor", "--upload-to", f"s3://{bucket}/data", "-o", "json").stdout
        )
    }
    levels = {name: item["level"] for name, item in found.items()}
    assert levels == {
        "cluster": "ok",
        "CRDs": "ok",
        "permissions": "ok",
        "operator": "warning",
        "S3 credentials": "warning",
        "GPUs": "warning",
        "S3 access": "ok",
    }
    assert "helm install" in found["operator"]["remedy"]
    assert "kubectl create secret generic finetune-s3" in found["S3 credentials"]["remedy"]
    team("create", "secret", "generic", "finetune-s3", "--from-literal=AWS_ACCESS_KEY_ID=a")
    ran = at_team("doctor", "--upload-to", "s3://no-such-bucket-here")
    assert ran.returncode == 1
    assert "ok       S3 credentials: Secret finetune-s3 exists in namespace" in ran.stdout
    assert "error    S3 access: there is no bucket 'no-such-bucket-here'" in ran.stdout


def test_names_are_completed_from_the_cluster(
    at_team: Run, run: Run, team: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.apply(finetune("tone-a"), finetune("tone-b"), finetune("other"))
    monkeypatch.setenv("_FINETUNE_COMPLETE", "bash_complete")
    words = f"finetune -n {team.namespace} get to"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", "4")
    assert run().stdout.splitlines() == ["plain,tone-a", "plain,tone-b"]
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")
    assert run().stdout.strip() == ""


def test_a_cluster_without_the_operator_says_so(
    at_team: Run, admin: Kubectl, team: Kubectl
) -> None:
    """The kind is missing under this version of the API: what an empty cluster answers."""
    from finetune_cli.cluster.connection import connect
    from finetune_cli.cluster.errors import ApiError
    from finetune_cli.cluster.resources import Resource
    from finetune_cli.cluster.target import ClusterTarget

    nothing = Resource(connect(ClusterTarget(namespace=team.namespace)), "nothings", "Nothing")
    with pytest.raises(ApiError, match="CRDs are not installed"):
        nothing.list()
