"""Models whose files are deleted with them, without a cluster."""

from datetime import timedelta
from typing import Any

import pytest

from finetune_api import names
from finetune_api.model import Model
from finetune_api.outcome import Deleted, Outcome
from finetune_api.tasks import BaseModelRef, DeletionTask
from finetune_operator import messages
from finetune_operator.core.deletion import (
    CONDITION,
    RETRY_SECONDS,
    ModelPlan,
    ObservedModel,
    decide_model,
    find_strays,
)
from finetune_operator.core.model_files import continues_from, shares_files
from finetune_operator.core.observed import Job
from finetune_operator.core.resolution import resolve_base
from tests.support.objects import NOW, a_finetune, a_settings, failed, secret_keys

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


def decide(model: Model, job: Job | None = None, seconds: float = 0, **observed: Any) -> ModelPlan:
    found = ObservedModel(model, job, **observed)
    return decide_model(found, a_settings(), NOW + timedelta(seconds=seconds))


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


def condition_of(plan: ModelPlan) -> tuple[str, str]:
    (condition,) = plan.status.conditions
    assert (condition.type, condition.status) == (CONDITION, "False")
    return condition.reason, condition.message


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
    assert "envFrom" not in container
    keys = secret_keys(container)
    assert keys["AWS_ACCESS_KEY_ID"] == ("other", False)
    assert keys["AWS_ENDPOINT_URL"] == ("other", True)
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


def test_a_condition_does_not_outlive_its_cause() -> None:
    model = a_model("Delete", *HELD, going=True)
    waiting = model.replace(status=decide(model, used_by="next").status)
    assert condition_of(decide(waiting, made()))[0] == "Starting"


# --- a namespace that terminates -----------------------------------------------------------------


@pytest.mark.parametrize("job", [None, made()])
@pytest.mark.parametrize("observed", [{}, {"used_by": "next"}])
def test_a_terminating_namespace_is_never_blocked(
    job: Job | None, observed: dict[str, Any]
) -> None:
    model = a_model("Delete", *HELD, "other", going=True)
    first = decide(model, job, namespace_is_terminating=True, **observed)
    reason, message = condition_of(first)
    assert (reason, first.requeue_after) == ("NamespaceTerminating", 0)
    assert f"aws s3 rm --recursive {SPEC['uri']}/" in message
    then = decide(model.replace(status=first.status), job, namespace_is_terminating=True)
    assert (then.status, then.finalizers, then.create) == (first.status, ["other"], None)
    assert then.kept == message


# --- a FineTune that continues from the Model ----------------------------------------------------


def a_user(state: str | None, *, going: bool = False, **fields: Any) -> dict[str, Any]:
    status = {"state": state, **fields} if state else {}
    meta = {"name": "next", **({"deletionTimestamp": "now"} if going else {})}
    return {"metadata": meta, "spec": {"model": SPEC["id"]}, "status": status}


@pytest.mark.parametrize(
    ("finetune", "uses"),
    [
        (a_user(None), True),
        (a_user("pending", resolved={"base": {"uri": SPEC["uri"]}}), True),
        (a_user("running", resolved={"base": {"uri": SPEC["uri"] + "/"}}), True),
        (a_user("running", resolved={"base": {"uri": "s3://bucket/out/team/x-1/model"}}), False),
        (a_user("running", resolved={"base": {"uri": "hf://org/base"}}), False),
        (a_user("running", going=True, resolved={"base": {"uri": SPEC["uri"]}}), False),
        *[
            (a_user(state, resolved={"base": {"uri": SPEC["uri"]}}), False)
            for state in sorted(names.TERMINAL_STATES)
        ],
        ({"metadata": {"name": "x"}, "spec": {"model": "ada-ft-team-tone-2026"}}, True),
        ({"metadata": {"name": "x"}, "spec": {"model": "ada"}}, False),
        ({"metadata": {"name": "x"}}, False),
    ],
)
def test_an_unfinished_finetune_keeps_the_files_that_it_reads(
    finetune: dict[str, Any], uses: bool
) -> None:
    assert continues_from(finetune, a_model("Delete", *HELD, going=True)) is uses


def test_files_in_use_are_deleted_after_their_last_use() -> None:
    model = a_model("Delete", *HELD, going=True)
    plan = decide(model, used_by="next")
    reason, message = condition_of(plan)
    assert (reason, plan.finalizers, plan.create) == ("InUse", HELD, None)
    assert message.startswith("FineTune next continues from this model")
    assert plan.requeue_after is not None
    assert decide(model.replace(status=plan.status)).create is not None


@pytest.mark.parametrize("wanted", [SPEC["id"], "ada-ft-team-tone-2026"])
def test_a_finetune_does_not_start_from_a_model_that_is_being_deleted(wanted: str) -> None:
    finetune = a_finetune(model=wanted)
    alive, going = a_model("Delete", *HELD), a_model("Retain", "other", going=True)
    refused = resolve_base(finetune, (going,), a_settings())
    assert refused == messages.model_going("ada-ft-team-tone-2026")
    for models in ((alive,), (going, alive)):  # the same ID may be in use again
        found = resolve_base(finetune, models, a_settings())
        assert isinstance(found, BaseModelRef) and found.uri == SPEC["uri"]


# --- Models that are written by hand -------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fineTune": None}, "does not name the FineTune"),
        ({"uri": "s3://bucket/out/other/tone-11111111/model"}, "<output>/team/tone-11111111/model"),
        ({"uri": "s3://bucket/out/team/tone-22222222/model"}, "is not the address"),
        ({"uri": "s3://bucket/out/team/tone-11111111"}, "is not the address"),
        ({"uri": "s3://bucket/out/team/tone-11111111/model/adapter"}, "is not the address"),
        ({"uri": "s3://bucket/out/team/../team/tone-11111111/model"}, "is not the address"),
        ({"uri": "s3://bucket"}, "is not the address"),
        ({"fineTune": {"name": "tone", "uid": ""}}, "is not the address"),
    ],
)
def test_a_model_never_deletes_at_an_address_that_is_not_its_own(
    changes: dict[str, Any], words: str
) -> None:
    model = a_model("Delete", *HELD, going=True, **changes)
    plan = decide(model)
    reason, message = condition_of(plan)
    assert (reason, plan.create, plan.requeue_after) == ("ForeignFiles", None, 0)
    assert words in message and "Nothing was deleted" in message
    assert decide(model.replace(status=plan.status)).finalizers == []


@pytest.mark.parametrize(
    ("uri", "shares"),
    [
        (SPEC["uri"], True),
        (f"{SPEC['uri']}/", True),
        (f"{SPEC['uri']}/adapter", True),
        ("s3://bucket/out/team/tone-11111111", True),
        ("s3://bucket", True),
        ("s3://bucket/out/team/tone-11111111/model2", False),
        ("s3://bucket2/out/team/tone-11111111/model", False),
        ("hf://org/name", False),
        ("", False),
    ],
)
def test_a_second_model_with_the_same_files_prevents_their_deletion(uri: str, shares: bool) -> None:
    other = {"metadata": {"name": "copy", "uid": "other"}, "spec": {"uri": uri}}
    model = a_model("Delete", *HELD, going=True)
    assert shares_files(model, other) is shares
    own = {"metadata": {"uid": model.metadata.uid}, "spec": {"uri": uri}}
    assert shares_files(model, own) is False
    plan = decide(model, shared_with="copy")
    assert condition_of(plan)[0] == "ForeignFiles"
    assert "Model copy names files at" in condition_of(plan)[1]
    assert decide(model.replace(status=plan.status), shared_with="copy").finalizers == []


def test_files_that_the_manifest_gives_to_another_model_stay() -> None:
    job = made(ended(65, failed("ForeignFiles", "it does not hold tone")), has_failed=True)
    model = a_model("Delete", *HELD, going=True)
    first = decide(model, job)
    assert condition_of(first)[0] == "ForeignFiles"
    then = decide(model.replace(status=first.status), job)
    assert then.finalizers == []
    assert then.delete is not None


# --- Jobs that no deletion needs -----------------------------------------------------------------


def test_a_deletion_job_without_a_deletion_is_removed() -> None:
    job, going = made(), a_model("Delete", *HELD, going=True)
    assert find_strays(going, [job]) == ()
    recreated = going.replace(metadata=going.metadata.replace(uid="77777777-1"))
    for model in (None, a_model("Delete", *HELD), recreated):
        (stray,) = find_strays(model, [job])
        assert (stray.name, stray.uid) == (job.name, job.uid)
