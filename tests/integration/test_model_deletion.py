"""Models with deletionPolicy Delete on a real API server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api import names
from finetune_api.outcome import Deleted, Outcome
from tests.integration.conftest import Kubelet, Operator, start_deleter
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed

pytestmark = pytest.mark.integration

NAME = "ada-ft-team-tone-2026"
HELD = [names.FINALIZER_MODEL]


@pytest.fixture
def deleter(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    made = start_deleter(team, tools / "helm", tmp_path)
    yield made
    made.stop()


def a_model(team: Kubectl, policy: str, name: str = NAME, run: str = "tone") -> dict[str, Any]:
    """A Model as the operator creates it for FineTune `run`."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {
            "id": f"ada:ft-team:{run}-2026",
            "uri": f"s3://bucket/out/{team.namespace}/{run}-11111111/model",
            "fineTune": {"name": run, "uid": "11111111-2222"},
            "base": "ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 256,
            "deletionPolicy": policy,
        },
    }


def finalizers(team: Kubectl) -> list[str]:
    found: list[str] = team.get("model", NAME)["metadata"].get("finalizers", [])
    return found


def test_only_a_model_that_says_so_waits_for_its_files(team: Kubectl, deleter: Operator) -> None:
    team.apply(a_model(team, "Retain"))
    team.apply(a_model(team, "Delete", "other", "other"))
    until(lambda: "finalizers" in team.get("model", "other")["metadata"], 20, deleter.logs)
    assert finalizers(team) == []
    team("delete", "model", NAME, "--timeout=10s")
    patch = '{"spec": {"deletionPolicy": "Retain"}}'
    team("patch", "model", "other", "--type=merge", "-p", patch)
    until(lambda: "finalizers" not in team.get("model", "other")["metadata"], 20, deleter.logs)
    assert team.list("jobs") == []


def test_the_model_goes_when_its_files_are_gone(
    team: Kubectl, deleter: Operator, kubelet: Kubelet
) -> None:
    team.apply(a_model(team, "Delete"))
    until(lambda: finalizers(team) == HELD, 20, deleter.logs)
    team("delete", "model", NAME, "--wait=false")
    job = kubelet.job("-delete")
    (pod,) = kubelet.start_pods(job)
    assert finalizers(team) == HELD
    kubelet.end(pod, 0, Outcome(deleted=Deleted(files=3)).to_termination_message())
    until(lambda: team.list("models") == [], 20, deleter.logs)
    until(lambda: not [item for item in team.list("jobs") if is_wanted(item)], 20, deleter.logs)


def is_wanted(job: dict[str, Any]) -> bool:
    return "deletionTimestamp" not in job["metadata"]


def deny(team: Kubectl, kubelet: Kubelet) -> None:
    """S3 denies access to the deletion Job, and the Job controller fails the Job."""
    job = kubelet.job("-delete")
    (pod,) = kubelet.start_pods(job)
    message = failed("S3AccessDenied", "S3 denies access to s3://bucket").to_termination_message()
    kubelet.end(pod, names.EXIT_USER, message)
    now = "2026-11-21T12:05:00Z"
    reasons = {"reason": "PodFailurePolicy", "message": "exit code 65"}
    conditions = [
        {"type": kind, "status": "True", "lastTransitionTime": now, **reasons}
        for kind in ("FailureTarget", "Failed")
    ]
    status = {"conditions": conditions, "failed": 1, "startTime": now}
    team.patch_status("job", job["metadata"]["name"], status)


def conditions_of(team: Kubectl, name: str) -> list[dict[str, Any]]:
    """The conditions of the Model."""
    found: list[dict[str, Any]] = team.get("model", name).get("status", {}).get("conditions")
    return [item for item in found or [] if item["reason"] == "S3AccessDenied"]


def test_a_failure_stands_on_the_model_and_the_owner_can_give_up(
    team: Kubectl, deleter: Operator, kubelet: Kubelet
) -> None:
    team.apply(a_model(team, "Delete"))
    until(lambda: finalizers(team) == HELD, 20, deleter.logs)
    team("delete", "model", NAME, "--wait=false")
    deny(team, kubelet)
    until(lambda: conditions_of(team, NAME), 20, deleter.logs)
    assert "S3 denies access" in conditions_of(team, NAME)[0]["message"]
    assert finalizers(team) == HELD
    team("patch", "model", NAME, "--type=merge", "-p", '{"spec": {"deletionPolicy": "Retain"}}')
    until(lambda: team.list("models") == [], 20, deleter.logs)


def condition_of(team: Kubectl, name: str = NAME) -> dict[str, Any]:
    conditions = team.get("model", name).get("status", {}).get("conditions", [])
    found: dict[str, Any] = next((it for it in conditions if it["type"] == "FilesDeleted"), {})
    return found


def test_files_stay_until_the_finetune_that_continues_from_them_has_ended(
    team: Kubectl, deleter: Operator, kubelet: Kubelet
) -> None:
    model = a_model(team, "Delete")
    team.apply(model)
    until(lambda: finalizers(team) == HELD, 20, deleter.logs)
    team.apply(finetune("next", model=model["spec"]["id"]))
    team.wait_state("next", "pending")
    team("delete", "model", NAME, "--wait=false")
    until(lambda: condition_of(team).get("reason") == "InUse", 20, deleter.logs)
    assert condition_of(team)["message"].startswith("FineTune next continues from this model")

    team.apply(finetune("late", model=NAME))
    error = team.wait_state("late", "failed")["error"]
    assert error["code"] == "UnknownModel"
    assert f"Model {NAME} is being deleted" in error["message"]
    assert not [it for it in team.list("jobs") if it["metadata"]["name"].endswith("-delete")]

    team("patch", "finetune", "next", "--type=merge", "-p", '{"spec": {"cancel": true}}')
    (pod,) = kubelet.start_pods(kubelet.job("-delete"))  # immediately, not at the next check
    kubelet.end(pod, 0, Outcome(deleted=Deleted(files=3)).to_termination_message())
    until(lambda: team.list("models") == [], 20, deleter.logs)


def test_a_copy_of_a_model_deletes_nothing_and_ends(
    team: Kubectl, deleter: Operator, kubelet: Kubelet
) -> None:
    """Two Models with the same files; then one whose manifest in S3 names another owner."""
    team.apply(a_model(team, "Delete"), a_model(team, "Delete", "copy"))
    for name in (NAME, "copy"):
        until(lambda name=name: "finalizers" in team.get("model", name)["metadata"], 20)
    team("delete", "model", "copy", "--timeout=20s")
    assert team.list("jobs") == []
    assert f"Model copy is released: Model {NAME} names files at" in deleter.logs()

    team("delete", "model", NAME, "--wait=false")
    (pod,) = kubelet.start_pods(kubelet.job("-delete"))
    doubt = failed("ForeignFiles", "its manifest has the id x, and the Model has y")
    kubelet.end(pod, names.EXIT_USER, doubt.to_termination_message())
    until(
        lambda: team.list("models") == [], 20, lambda: team("get", "models,pods,jobs", "-o", "yaml")
    )
    assert "Nothing was deleted" in deleter.logs()
    until(lambda: not [item for item in team.list("jobs") if is_wanted(item)], 20, deleter.logs)
