"""The deletion of a Model. With deletionPolicy Delete, its files in S3 are deleted first.

Only a Model with that policy has a finalizer, which is kept until its files are really gone.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from finetune_api import names
from finetune_api.finetune_status import Condition
from finetune_api.model import Model, ModelStatus
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.build.deletion_job import build_deletion_job
from finetune_operator.core.observed import Job
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import DeleteJob, stamp
from finetune_operator.core.verdict import judge
from finetune_operator.messages import StatusMessage
from finetune_operator.settings import Settings

CONDITION = "FilesDeleted"
RETRY_SECONDS = 300.0  # after a Job that failed in spite of its own retries
RECHECK_SECONDS = 30.0


@dataclass(frozen=True)
class ModelPlan:
    """Carried out in this order: creation, status, finalizers, and the deletion of the Job."""

    status: ModelStatus
    finalizers: list[str]
    create: dict[str, Any] | None = None
    delete: DeleteJob | None = None
    requeue_after: float | None = None


def decide_model(model: Model, job: Job | None, settings: Settings, now: datetime) -> ModelPlan:
    """Decide on a Model. job: the deletion Job, if there is one."""
    wants = model.spec.deletion_policy == "Delete"
    others = [name for name in model.metadata.finalizers if name != names.FINALIZER_MODEL]
    held = [*others, names.FINALIZER_MODEL]
    is_held = names.FINALIZER_MODEL in model.metadata.finalizers
    if model.metadata.deletion_timestamp is None:
        return ModelPlan(model.status, held if wants else others)
    if not is_held:
        return ModelPlan(model.status, others)
    if not wants or (job is not None and _is_done(job)):
        unneeded = DeleteJob(job.name, job.uid) if job is not None and not job.is_going else None
        return ModelPlan(model.status, others, delete=unneeded)
    if job is None:
        made = build_deletion_job(model, settings)
        return ModelPlan(model.status, held, create=made, requeue_after=RECHECK_SECONDS)
    return _watch(model, held, job, now)


def explained(model: Model, plan: ModelPlan, refused: StatusMessage, now: datetime) -> ModelPlan:
    """The plan without the deletion Job, which the API server refuses to create."""
    message = messages.files_not_deleted(refused.message)
    return replace(plan, status=_with_condition(model, refused.reason, message, now), create=None)


def _is_done(job: Job) -> bool:
    results = [pod.outcome.deleted for pod in job.pods if pod.exit_code == 0 and pod.outcome]
    return job.has_completed or any(results)


def _watch(model: Model, held: list[str], job: Job, now: datetime) -> ModelPlan:
    verdict = judge(job)
    if job.has_failed and not job.is_going:
        error = verdict.error if verdict else messages.job_failed(job.failure, disrupted=False)
        status = _with_condition(model, error.code, messages.files_not_deleted(error.message), now)
        again = (job.failed_at or now) + timedelta(seconds=RETRY_SECONDS)
        if now < again:
            wait = (again - now).total_seconds() + 1
            return ModelPlan(status, held, requeue_after=wait)
        return ModelPlan(status, held, delete=DeleteJob(job.name, job.uid), requeue_after=1)
    message = explain(job, 1)
    if verdict is not None:
        message = StatusMessage(verdict.error.code, verdict.error.message)
    elif message.reason == Reason.STARTING:
        return ModelPlan(model.status, held, requeue_after=RECHECK_SECONDS)
    status = _with_condition(model, message.reason, message.message, now)
    return ModelPlan(status, held, requeue_after=RECHECK_SECONDS)


def _with_condition(model: Model, reason: str, message: str, now: datetime) -> ModelStatus:
    old = next((item for item in model.status.conditions if item.type == CONDITION), None)
    condition = Condition(
        type=CONDITION,
        status="False",
        reason=reason,
        message=message[:4096],
        last_transition_time=old.last_transition_time if old else stamp(now),
        observed_generation=model.metadata.generation,
    )
    others = [item for item in model.status.conditions if item.type != CONDITION]
    return model.status.replace(conditions=[*others, condition])
