"""Models whose files are deleted with them, without a cluster."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api import names
from finetune_api.model import Model
from finetune_api.outcome import Deleted, Outcome
from finetune_api.tasks import DeletionTask
from finetune_operator.core.deletion import CONDITION, RETRY_SECONDS, ModelPlan, decide_model
from finetune_operator.core.observed import Job
from tests.support.objects import NOW, a_settings, failed

HELD = [names.FINALIZER_MODEL]
SPEC = {
    "id": "ada:ft-team:tone-2026",
    "uri": "s3://bucket/out/team/tone-11111111/model",
    "base": "ada",
    "manifestSha256": "0" * 64,
    "pretrainingLearningRate": 0.001,
    "contextLength": 256,
    "fineTune": {"name": "tone", "uid": "11111111-2222"},
}


def a_model(policy: str, *finalizers: str, going: bool = False, **changes: Any) -> Model:
    meta = {
        "name": "ada-ft-team-tone-2026",
        "namespace": "team",
        "uid": "99999999-8888",
        "finalizers": list(finalizers),
        **({"deletionTimestamp": "2026-11-21T12:00:00Z"} if going else {}),
    }
    spec = {**SPEC, "deletionPolicy": policy, **changes}
    return Model.parse({"apiVersion": names.API_VERSION, "metadata": meta, "spec": spec})


def decide(model: Model, job: Job | None = None, seconds: float = 0) -> ModelPlan:
    return decide_model(model, job, a_settings(), NOW + timedelta(seconds=seconds))


def made(pod_status: dict[str, Any] | None = None, *, has_failed: bool = False) -> Job:
    """The deletion Job with its pod, as in the control plane."""
    plan = decide(a_model("Delete", *HELD, going=True))
    assert plan.create is not None
    job = {**plan.create, "metadata": {**plan.create["metadata"], "uid": "job-uid"}}
    if has_failed:
        condition = {
            "type": "Failed",
            "status": "True",
            "message": "pod failed",
            "lastTransitionTime": NOW.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        job["status"] = {"conditions": [condition]}
    pod = {
        "metadata": {"name": "p", "ownerReferences": [{"uid": "job-uid", "controller": True}]},
        "status": pod_status or {"phase": "Pending"},
    }
    return Job.parse(job, [pod])


def ended(code: int, outcome: Outcome) -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "message": outcome.to_termination_message()}}
    return {
        "phase": "Failed" if code else "Succeeded",
        "containerStatuses": [{"state": state}],
    }


@pytest.mark.parametrize(
    ("policy", "before", "after"),
    [
        ("Retain", [], []),
        ("Delete", [], HELD),
        ("Delete", HELD, HELD),
        ("Retain", HELD, []),
        ("Delete", ["other"], ["other", *HELD]),
        ("Retain", [*HELD, "other"], ["other"]),
    ],
)
def test_only_a_model_with_deletion_policy_delete_has_a_finalizer(
    policy: str, before: list[str], after: list[str]
) -> None:
    plan = decide(a_model(policy, *before))
    assert (plan.finalizers, plan.create) == (after, None)


def test_its_deletion_creates_one_job_with_the_exact_task() -> None:
    plan = decide(a_model("Delete", *HELD, going=True, secretName="other"))
    assert plan.create is not None
    pod = plan.create["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["python", "-m", "finetune_data.deletion"]
    assert container["envFrom"] == [{"secretRef": {"name": "other", "optional": False}}]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    task = DeletionTask.model_validate_json(container["env"][0]["value"])
    assert (task.uri, task.manifest_sha256) == (SPEC["uri"], "0" * 64)
    assert (task.namespace, task.fine_tune) == ("team", "tone")
    assert "ownerReferences" not in plan.create["metadata"]
    assert len(plan.create["metadata"]["name"]) <= 63
    assert plan.finalizers == HELD


def test_the_finalizer_stays_while_the_job_runs() -> None:
    plan = decide(a_model("Delete", *HELD, going=True), made())
    assert (plan.finalizers, plan.create, plan.delete) == (HELD, None, None)
    assert plan.status.conditions == []


def test_the_finalizer_is_removed_when_the_files_are_deleted() -> None:
    job = made(ended(0, Outcome(deleted=Deleted(files=7, size=100))))
    plan = decide(a_model("Delete", *HELD, going=True), job)
    assert plan.finalizers == []
    assert plan.delete is not None


def test_a_failure_is_reported_and_retried_later() -> None:
    model = a_model("Delete", *HELD, going=True)
    job = made(ended(65, failed("S3AccessDenied", "S3 denies access")), has_failed=True)
    plan = decide(model, job)
    (condition,) = plan.status.conditions
    assert (condition.type, condition.status) == (CONDITION, "False")
    assert condition.reason == "S3AccessDenied"
    assert "S3 denies access" in condition.message
    assert (plan.finalizers, plan.delete) == (HELD, None)
    reported = model.replace(status=plan.status)
    assert decide(reported, job, 10).status == plan.status
    again = decide(reported, job, RETRY_SECONDS)
    assert again.delete is not None
    assert decide(reported, None, RETRY_SECONDS + 1).create is not None


def test_the_policy_retain_gives_up_on_the_files() -> None:
    job = made(ended(65, failed("S3AccessDenied")), has_failed=True)
    plan = decide(a_model("Retain", *HELD, going=True), job)
    assert plan.finalizers == []
    assert plan.delete is not None


def test_the_cause_of_a_waiting_deletion_is_reported() -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}
    status = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}
    plan = decide(a_model("Delete", *HELD, going=True), made(status))
    assert plan.status.conditions[0].reason == "ContainerConfig"
    assert plan.finalizers == HELD
