"""Requests of the operator that the API server refuses: explained, in time, and recovered from."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_api.names import Reason
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.doctor.cluster_checks import refused_statuses
from tests.integration.conftest import Kubelet, Operator, start_deleter
from tests.integration.crowds import TWO_NODES
from tests.integration.test_model_deletion import a_model
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.objects import prepared, trained

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ADMISSION = "admissionregistration.k8s.io/v1"
TWO_RETRIES = 3.5  # seconds: the back-off begins with 1 s and 2 s


@contextmanager
def quota(team: Kubectl, **hard: str) -> Iterator[None]:
    """A ResourceQuota with its status, which the controller that is missing here would set."""
    limits = {"count/" + key.replace("__", "."): value for key, value in hard.items()}
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ResourceQuota"}
    body |= {"metadata": {"name": "places"}, "spec": {"hard": limits}}
    team.apply(body)
    set_used(team, dict.fromkeys(limits, "0"), limits)
    yield
    team("delete", "resourcequota", "places")


def set_used(team: Kubectl, used: dict[str, str], hard: dict[str, str]) -> None:
    found = team.get("resourcequota", "places") | {"status": {"hard": hard, "used": used}}
    team("replace", "--subresource=status", "-f", "-", stdin=yaml.safe_dump(found))


@contextmanager
def policy(admin: Kubectl, team: Kubectl, *verbs: str, kind: str = "jobs") -> Iterator[None]:
    """A ValidatingAdmissionPolicy on the namespace of the test that denies the verbs."""
    name = f"deny-{team.namespace}"
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": list(verbs)}
    namespaces = {"matchLabels": {"kubernetes.io/metadata.name": team.namespace}}
    admin.apply(
        {
            "apiVersion": ADMISSION,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule | {"resources": [kind]}]},
                "validations": [{"expression": "false", "message": "every Job needs a budget"}],
            },
        },
        {
            "apiVersion": ADMISSION,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": namespaces},
            },
        },
    )
    until(lambda: is_denied(team, kind, verbs[0]), 30)
    yield
    admin("delete", "validatingadmissionpolicybinding", name)
    admin("delete", "validatingadmissionpolicy", name)


@contextmanager
def dead_webhook(admin: Kubectl, team: Kubectl, kind: str = "jobs") -> Iterator[None]:
    """A webhook that fails closed, with a server that does not listen."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port = made.getsockname()[1]
        name = f"dead-{team.namespace}"
        rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"]}
        admin.apply(
            {
                "apiVersion": ADMISSION,
                "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [
                    {
                        "name": "hook.example.com",
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                        "timeoutSeconds": 2,
                        "failurePolicy": "Fail",
                        "clientConfig": {"url": f"https://127.0.0.1:{port}/x"},
                        "rules": [rule | {"resources": [kind]}],
                        "namespaceSelector": {
                            "matchLabels": {"kubernetes.io/metadata.name": team.namespace}
                        },
                    }
                ],
            }
        )
        until(lambda: is_denied(team, kind, "CREATE"), 30)
        yield
        admin("delete", "validatingwebhookconfiguration", name)


def is_denied(team: Kubectl, kind: str, verb: str) -> bool:
    """Whether the API server applies the policy already, from a request of the test."""
    probes: dict[str, dict[str, Any]] = {"jobs": a_job("probe"), "services": a_service("probe")}
    probe = probes.get(kind, a_model(team, "Retain"))
    path = f"{probe['kind'].lower()}/{probe['metadata']['name']}"
    try:
        if verb == "DELETE":
            team.apply(probe)
            team("delete", path, "--dry-run=server")
        else:
            team("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(probe))
    except RefusedError as error:
        return "denied request" in str(error) or "failed calling webhook" in str(error)
    return False


def a_job(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "registry/probe:1"}
    pod = {"restartPolicy": "Never", "containers": [container]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": pod}},
    }


def a_service(name: str) -> dict[str, Any]:
    spec = {"clusterIP": "None", "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def wait_refused(
    team: Kubectl, reason: str, words: str, operator: Operator, name: str = "tone"
) -> dict[str, Any]:
    """Wait for the explained status, and check what every refusal keeps."""
    found: dict[str, Any] = {}

    def is_explained() -> bool:
        found.update(team.status(name))
        return found.get("reason") == reason and words in found.get("message", "")

    until(is_explained, 40, lambda: f"{team.status(name)}\n{operator.logs()}")
    assert found["state"] == "pending"
    assert found["startedAt"]
    assert [event["reason"] for event in found["events"]].count("Created") == 1
    return found


def wait_settled(team: Kubectl, name: str = "tone") -> None:
    """Wait for two retries, which write no further status."""

    before = team.status(name)
    time.sleep(TWO_RETRIES)
    assert team.status(name) == before


def until_prepared(team: Kubectl, kubelet: Kubelet, **spec: Any) -> None:
    team.apply(finetune("tone", **{**TWO_NODES, **spec}))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())


def jobs_of(team: Kubectl) -> list[str]:
    return [job["metadata"]["name"] for job in team.list("jobs")]


def test_the_deadline_ends_a_finetune_whose_jobs_are_refused(
    team: Kubectl, killed_operator: Operator
) -> None:
    with quota(team, jobs__batch="0"):
        team.apply(finetune("tone", **TWO_NODES, pendingDeadlineSeconds=4))
        status = team.wait_state("tone", "failed")
    assert status["error"]["code"] == "DeadlineExceeded"
    assert "exceeded quota: places" in status["error"]["message"]


def test_one_place_for_jobs_is_freed_for_the_training(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    hard = {"count/jobs.batch": "1"}
    with quota(team, jobs__batch="1"):
        until_prepared(team, kubelet)
        until(lambda: jobs_of(team) == [], 40, lambda: str(team.status("tone")))
        set_used(team, {"count/jobs.batch": "0"}, hard)  # as the controller does
        kubelet.job("-a1", 70)
    assert team.status("tone")["resolved"]["hyperparameters"]


def test_one_life_recovers_from_a_refusal_of_each_object(
    admin: Kubectl, team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    with quota(team, jobs__batch="0"):
        team.apply(finetune("tone", **TWO_NODES))
        wait_refused(team, Reason.QUOTA_EXCEEDED, "exceeded quota: places", killed_operator)
        wait_settled(team)
    job = kubelet.job("-prepare", 70)
    until(lambda: team.status("tone")["reason"] == "Validating", 20)
    words = "every Job needs a budget"
    with ExitStack() as later:
        with policy(admin, team, "CREATE"):
            (pod,) = kubelet.start_pods(job)
            kubelet.end(pod, 0, prepared().to_termination_message())
            status = wait_refused(team, Reason.POLICY_DENIED, words, killed_operator)
            assert status["stage"] == "queued"
            wait_settled(team)
            later.enter_context(quota(team, services="0"))  # before the next try can succeed
        wait_refused(team, Reason.QUOTA_EXCEEDED, "Service ", killed_operator)
        wait_settled(team)  # no Job waits for DNS with its GPUs
        assert [name for name in jobs_of(team) if not name.endswith("-prepare")] == []
    pods = kubelet.start_pods(kubelet.job("-a1", 70))
    kubelet.ready(*pods)
    team.wait_state("tone", "running")
    meta = team.get("finetune", "tone")["metadata"]
    with dead_webhook(admin, team, "models"):
        kubelet.end(pods[1], 0)
        kubelet.end(pods[0], 0, trained().to_termination_message())
        status = wait_refused(team, Reason.WEBHOOK_FAILED, '"hook.example.com"', killed_operator)
        assert f"/tone-{meta['uid'][:8]}/model" in status["message"]
        assert status["stage"] == "publishing"
        wait_settled(team)
    status = team.wait_state("tone", "succeeded", seconds=70)
    assert [len(team.list(kind)) for kind in ("models", "services")] == [1, 1]
    assert [attempt["number"] for attempt in status["attempts"]] == [1]
    reasons = [event["reason"] for event in status["events"]]
    assert all(reasons.count(reason) == 1 for reason in ("Created", "Started", "Succeeded"))


def test_a_policy_on_deletions_is_quoted_and_the_cancellation_happens_later(
    admin: Kubectl, team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    until_prepared(team, kubelet)
    kubelet.job("-a1")
    with policy(admin, team, "DELETE"):
        team("patch", "finetune", "tone", "--type=merge", "-p", '{"spec": {"cancel": true}}')
        wait_refused(team, Reason.POLICY_DENIED, "every Job needs a budget", killed_operator)
        wait_settled(team)
    team.wait_state("tone", "cancelled", seconds=70)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "gpus": (
        {"resources": {"nodes": 1, "gpusPerNode": 1, "gpuResource": "gpu"}},
        "correct spec.resources.gpuResource",
    ),
    "nodes": (
        {"scheduling": {"nodeSelector": {"a b": "c"}}},
        "correct spec.scheduling.nodeSelector",
    ),
    "taints": (
        {"scheduling": {"tolerations": [{"key": "a b", "operator": "Exists"}]}},
        "correct spec.scheduling.tolerations[0].key",
    ),
}


def test_a_field_that_only_the_job_refuses_is_named(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    team.apply(*(finetune(name, **{"model": "ada", **spec}) for name, (spec, _) in WRONG.items()))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())
    for name, (_, words) in WRONG.items():
        wait_refused(team, Reason.INVALID_SPEC, words, killed_operator, name)
    wait_settled(team, "gpus")


def test_a_missing_permission_is_named_until_it_is_granted(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    role = team.get("role", "finetune-operator")
    role["metadata"] = {"name": role["metadata"]["name"]}

    def revoke(resource: str, verb: str = "create") -> None:
        rules = [
            rule | {"verbs": [item for item in rule["verbs"] if item != verb]}
            if rule["resources"] == [resource]
            else rule
            for rule in role["rules"]
        ]
        team.apply({**role, "rules": rules})

    def wait_forbidden(resource: str) -> None:
        words = f'cannot create resource "{resource}"'
        wait_refused(team, Reason.FORBIDDEN, words, killed_operator)

    revoke("models", "list")
    team.apply(finetune("other", **{**TWO_NODES, "model": "ada-ft-other"}))
    words = 'cannot list resource "models"'
    wait_refused(team, Reason.FORBIDDEN, words, killed_operator, "other")
    revoke("jobs")
    team.apply(finetune("tone", **TWO_NODES))
    wait_forbidden("jobs")
    revoke("services")
    (pod,) = kubelet.start_pods(kubelet.job("-prepare", 70))
    kubelet.end(pod, 0, prepared().to_termination_message())
    wait_forbidden("services")
    revoke("models")
    pods = kubelet.start_pods(kubelet.job("-a1", 70))
    kubelet.end(pods[0], 0, trained().to_termination_message())
    wait_forbidden("models")
    team.apply(role)
    team.wait_state("tone", "succeeded", seconds=70)


def test_a_refused_status_is_an_event_that_the_doctor_finds(
    team: Kubectl, killed_operator: Operator, kubelet: Kubelet
) -> None:
    role = team.get("role", "finetune-operator")
    role["metadata"] = {"name": role["metadata"]["name"]}
    rules = [rule for rule in role["rules"] if rule["resources"] != ["finetunes/status"]]
    team.apply({**role, "rules": rules})
    team.apply(finetune("tone", **TWO_NODES))
    cluster = connect(ClusterTarget(kubeconfig=team.kubeconfig, namespace=team.namespace))
    found: dict[str, str] = {}

    def is_reported() -> bool:
        found.update(refused_statuses(cluster))
        return bool(found)

    until(is_reported, 30, killed_operator.logs)
    assert 'cannot patch resource "finetunes/status"' in found["tone"]
    assert 'refused_status_writes_total{code="403"}' in killed_operator.metrics()
    time.sleep(TWO_RETRIES)
    events = [item for item in team.list("events") if item["reason"] == "StatusRefused"]
    assert len(events) == 1
    team.apply(role)
    until(lambda: team.status("tone").get("state") == "pending", 70)


@pytest.fixture
def deleter(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    made = start_deleter(team, tools / "helm", tmp_path)
    yield made
    made.kill()


def test_a_deletion_job_that_is_refused_is_explained_on_the_model(
    team: Kubectl, deleter: Operator, kubelet: Kubelet
) -> None:
    model = a_model(team, "Delete")
    name = model["metadata"]["name"]
    team.apply(model)
    until(lambda: "finalizers" in team.get("model", name)["metadata"], 20, deleter.logs)

    def words() -> str:
        conditions = team.get("model", name).get("status", {}).get("conditions", [])
        return json.dumps(conditions)

    with quota(team, jobs__batch="0"):
        team("delete", "model", name, "--wait=false")
        until(lambda: "exceeded quota: places" in words(), 30, deleter.logs)
        assert "QuotaExceeded" in words()
    team("label", "model", name, "touched=true")  # instead of the next retry
    kubelet.job("-delete", 70)
