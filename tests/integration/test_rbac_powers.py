"""A user who can write FineTunes gets none of the operator's or the pods' permissions."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.conftest import CHART, ROOT, Kubelet, Operator
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import failed

pytestmark = pytest.mark.integration

TWO_NODES = {"model": "ada", "resources": {"nodes": 2, "gpusPerNode": 0}}
GOLDEN = sorted((ROOT / "tests/operator/golden").glob("*.yaml"))

# What a pod could be made to do with it. None is a field, and none may become one unseen.
FIELDS = (
    "image",
    "trainerImage",
    "command",
    "args",
    "env",
    "envFrom",
    "volumes",
    "volumeMounts",
    "hostPath",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "hostUsers",
    "nodeName",
    "affinity",
    "securityContext",
    "privileged",
    "runAsUser",
    "capabilities",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "imagePullSecrets",
    "initContainers",
    "containers",
    "template",
    "podTemplate",
    "podSpec",
    "runtimeClassName",
    "schedulerName",
    "dnsConfig",
    "hostAliases",
    "subdomain",
    "namespace",
    "targetNamespace",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "kubeconfig",
    "trustRemoteCode",
    "script",
    "plugins",
)
NESTED = (
    ("storage", "namespace"),
    ("storage", "accessKey"),
    ("storage", "endpoint"),
    ("storage", "secretRef"),
    ("resources", "limits"),
    ("resources", "claims"),
    ("scheduling", "nodeName"),
    ("scheduling", "affinity"),
    ("scheduling", "schedulerName"),
    ("deepspeed", "config"),
    ("method", "script"),
    ("hyperparameters", "args"),
)


def test_the_api_server_knows_none_of_the_fields_that_would_lend_powers(team: Kubectl) -> None:
    """Without client validation, the fields are dropped and not stored."""
    spec: dict[str, Any] = dict.fromkeys(FIELDS, "x")
    for part, field in NESTED:
        spec.setdefault(part, {})[field] = "x"
    manifest = finetune("tone", **spec)
    team("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump(manifest))
    stored = team.get("finetune", "tone")["spec"]
    assert set(stored) & set(FIELDS) == set()
    for part, field in NESTED:
        assert field not in stored.get(part, {})
    with pytest.raises(RefusedError) as refused:
        team.apply(finetune("strict", **spec))
    for name in (*FIELDS, *(f"{part}.{field}" for part, field in NESTED)):
        assert f'unknown field "spec.{name}"' in str(refused.value)


@pytest.mark.parametrize(
    "spec",
    [
        {"storage": {"secretName": "other-team/finetune-s3"}},
        {"storage": {"secretName": "../finetune-s3"}},
        {"output": "file:///etc"},
        {"output": "https://example.com/out"},
        {"trainingFile": "/var/run/secrets/kubernetes.io/serviceaccount/token"},
        {"trainingFile": "file:///etc/passwd"},
        {"trainingFile": "http://169.254.169.254/latest/meta-data"},
        {"trainingFile": "hf://somebody/data"},
        {"runtime": "registry.example.com/evil:1"},
        {"queueName": "../other"},
        {"priorityClassName": "system-node-critical"},
        {"priorityClassName": "system-cluster-critical"},
        {"resources": {"nodes": 100000}},
        {"resources": {"gpusPerNode": -1}},
        {"resources": {"memory": "lots"}},
        {"scheduling": {"tolerations": [{}] * 33}},
        {"scheduling": {"nodeSelector": {"a": "x" * 64}}},
        {"suffix": "x" * 10000},
    ],
    ids=json.dumps,
)
def test_a_value_that_reaches_for_more_is_refused(team: Kubectl, spec: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=r"spec\.|Invalid value|priorityClassName"):
        team.apply(finetune("greedy", **spec))
    assert team.list("finetunes") == []


@pytest.mark.parametrize(
    "model", ["s3://bucket/models/ada", "hf://evil/model@main", "/models/ada", "../ada", "ada/../x"]
)
def test_a_model_is_a_name_of_the_catalog_and_never_an_address(
    team: Kubectl, operator: Operator, model: str
) -> None:
    team.apply(finetune("tone", model=model))
    assert team.wait_state("tone", "failed")["error"]["code"] == "UnknownModel"
    assert team.list("jobs") == []


def pods_of(path: Path) -> list[dict[str, Any]]:
    """The pods of the golden Jobs and Deployments."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": thing["metadata"]["name"]},
            "spec": thing["spec"]["template"]["spec"],
        }
        for thing in yaml.safe_load_all(path.read_text())
        if thing["kind"] in {"Job", "Deployment"}
    ]


@pytest.fixture
def restricted(team: Kubectl) -> Kubectl:
    """A namespace with Pod Security `restricted`, and priority classes."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    team("label", "namespace", team.namespace, label)
    for account in ("default", "finetune"):
        team.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    team.apply(
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "high"},
            "value": 1000,
        }
    )
    return team


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: str(path.stem))
def test_every_pod_passes_restricted(restricted: Kubectl, path: Path) -> None:
    pods = pods_of(path)
    assert len(pods) == (1 if path.stem.startswith("serving-") else 2)
    restricted("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(pods))


@pytest.mark.parametrize(
    ("where", "change", "words"),
    [
        ("container", {"privileged": True}, "privileged"),
        ("container", {"allowPrivilegeEscalation": True}, "allowPrivilegeEscalation"),
        ("container", {"capabilities": {"add": ["SYS_ADMIN"]}}, "capabilities"),
        ("pod", {"runAsNonRoot": False}, "runAsNonRoot"),
        ("pod", {"seccompProfile": {"type": "Unconfined"}}, "seccompProfile"),
    ],
)
def test_the_fence_is_real_a_weaker_pod_is_refused(
    restricted: Kubectl, where: str, change: dict[str, Any], words: str
) -> None:
    pod = pods_of(GOLDEN[0])[0]
    spec = pod["spec"] if where == "pod" else pod["spec"]["containers"][0]
    spec["securityContext"] |= change
    with pytest.raises(RefusedError, match=words):
        restricted("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(pod))


@pytest.fixture
def person(team: Kubectl, tools: Path) -> Kubectl:
    """A user with only the chart's Role finetune-user."""
    rendered = subprocess.run(
        [str(tools / "helm"), "template", "x", str(CHART), "-n", team.namespace],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for thing in yaml.safe_load_all(rendered):
        if thing and thing["kind"] == "Role" and thing["metadata"]["name"] == "finetune-user":
            team.apply(thing)
    team("create", "rolebinding", "ada", "--role=finetune-user", "--user=ada")
    return team


def may(team: Kubectl, user: str, *what: str) -> bool:
    try:
        return team("auth", "can-i", *what, f"--as={user}").strip() == "yes"
    except RefusedError:
        return False


def test_a_user_trains_and_looks_and_can_do_nothing_else(person: Kubectl) -> None:
    person("apply", "--as=ada", "-f", "-", stdin=yaml.safe_dump(finetune("tone", model="ada")))
    person(
        "patch", "finetune", "tone", "--as=ada", "--type=merge", "-p", '{"spec":{"cancel":true}}'
    )
    assert may(person, "ada", "get", "pods", "--subresource=log")
    assert may(person, "ada", "list", "models.finetune.dev")
    for what in (
        ("delete", "finetunes.finetune.dev"),
        ("delete", "models.finetune.dev"),
        ("patch", "finetunes.finetune.dev", "--subresource=status"),
        ("create", "models.finetune.dev"),
        ("get", "secrets"),
        ("create", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("create", "jobs.batch"),
        ("impersonate", "serviceaccounts"),
        ("create", "serviceaccounts", "--subresource=token"),
    ):
        assert not may(person, "ada", *what), what
    with pytest.raises(RefusedError, match="forbidden"):
        person("patch", "finetune", "tone", "--as=ada", "--subresource=status", "--type=merge",
               "-p", '{"status":{"state":"succeeded"}}')  # fmt: skip


def test_the_operator_reads_no_secret_and_no_other_namespace(
    team: Kubectl, operator: Operator, admin: Kubectl
) -> None:
    for verb in ("get", "list", "watch", "create", "patch", "delete"):
        assert not may(team, operator.user, verb, "secrets")
        assert not may(admin.within("default"), operator.user, verb, "finetunes.finetune.dev")
    for what in (
        ("create", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("get", "configmaps"),
    ):
        assert not may(team, operator.user, *what)


def test_canary_secrets_stand_in_no_status_event_job_or_log(
    team: Kubectl, operator: Operator, kubelet: Kubelet, tmp_path: Path
) -> None:
    canaries = {"AWS_ACCESS_KEY_ID": "canary-key-7f31", "AWS_SECRET_ACCESS_KEY": "canary-81c2f0"}
    team.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "finetune-s3"},
            "stringData": canaries,
        }
    )
    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 65, failed("S3AccessDenied", "s3://bucket is closed").to_termination_message())
    team.wait_state("tone", "failed")
    until(lambda: len(team.list("events")) >= 2, 10)
    output = team("get", "finetunes,models,jobs,pods,services,events,configmaps", "-o", "yaml")
    output += (operator.folder / "operator.log").read_text() + operator.metrics()
    for canary in canaries.values():
        assert canary not in output
        assert canary in team("get", "secret", "finetune-s3", "-o", "go-template="
                              "{{range .data}}{{base64decode .}} {{end}}")  # fmt: skip
    assert "secretKeyRef" in output
