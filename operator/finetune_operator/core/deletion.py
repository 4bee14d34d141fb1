"""The deletion of a Model. With deletionPolicy Delete, its files in S3 are deleted first.

Only a Model with that policy has a finalizer. The finalizer is kept until the files are deleted. It
is released with the files in place if they never can be deleted: in a namespace that terminates,
and if the files are not proven to be those of this Model.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from finetune_api import names
from finetune_api.finetune import Metadata
from finetune_api.finetune_status import Condition
from finetune_api.model import Model, ModelStatus
from finetune_api.names import FilesReason, Reason
from finetune_operator import messages
from finetune_operator.build.deletion_job import build_deletion_job, deletion_name
from finetune_operator.core.model_files import find_address_problem
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
class ObservedModel:
    """A Model, its deletion Job, and what may prevent the deletion of its files."""

    model: Model
    job: Job | None = None
    namespace_is_terminating: bool = False
    shared_with: str | None = None  # another Model with the same files, before the Job exists
    used_by: str | None = None  # an unfinished FineTune that needs them, before the Job exists
    refused: StatusMessage | None = None  # why the API server refuses the Job


@dataclass(frozen=True)
class ModelPlan:
    """Carried out in this order: creation, status, finalizers, and the deletion of the Job."""

    status: ModelStatus
    finalizers: list[str]
    create: dict[str, Any] | None = None
    delete: DeleteJob | None = None
    requeue_after: float | None = None
    kept: str | None = None  # why the files stay although the finalizer is released


def has_files_to_delete(model: Model) -> bool:
    """Whether the Model waits for the deletion of its files."""
    is_held = names.FINALIZER_MODEL in model.metadata.finalizers
    is_going = model.metadata.deletion_timestamp is not None
    return is_going and is_held and model.spec.deletion_policy == "Delete"


def decide_model(observed: ObservedModel, settings: Settings, now: datetime) -> ModelPlan:
    """Decide on a Model at any point of its life."""
    model, job = observed.model, observed.job
    others = without_ours(model.metadata)
    held = [*others, names.FINALIZER_MODEL]
    unneeded = DeleteJob(job.name, job.uid) if job is not None and not job.is_going else None
    if model.metadata.deletion_timestamp is None:
        wants = model.spec.deletion_policy == "Delete"
        return ModelPlan(model.status, held if wants else others)
    if not has_files_to_delete(model) or (job is not None and is_done(job)):
        return ModelPlan(model.status, others, delete=unneeded)
    kept = _reason_to_keep(observed)
    if kept is not None:
        status = _with_condition(model, kept, now)
        if status != model.status:  # first; the Job that explains it remains until the end
            return ModelPlan(status, others, requeue_after=0, kept=kept.message)
        return ModelPlan(status, others, delete=unneeded, kept=kept.message)
    if job is not None:
        return _watch(model, held, job, now)
    waits = observed.refused
    if observed.used_by is not None:
        waits = StatusMessage(FilesReason.IN_USE, messages.files_in_use(observed.used_by))
    if waits is not None:
        status = _with_condition(model, waits, now)
        return ModelPlan(status, held, requeue_after=RECHECK_SECONDS)
    made = build_deletion_job(model, settings)
    return ModelPlan(model.status, held, create=made, requeue_after=RECHECK_SECONDS)


def find_strays(model: Model | None, jobs: Iterable[Job]) -> tuple[DeleteJob, ...]:
    """Deletion Jobs that no deletion needs: late creations, and those of a Model that is gone.

    jobs: all deletion Jobs for Models with this name. model: the one that has it now.
    """
    is_going = model is not None and model.metadata.deletion_timestamp is not None
    wanted = deletion_name(model) if model is not None and is_going else None
    strays = (job for job in jobs if job.name != wanted and not job.is_going)
    return tuple(DeleteJob(job.name, job.uid) for job in strays)


def without_ours(meta: Metadata) -> list[str]:
    """The finalizers of others."""
    return [name for name in meta.finalizers if name != names.FINALIZER_MODEL]


def is_done(job: Job) -> bool:
    """Whether the files are deleted."""
    results = [pod.outcome.deleted for pod in job.pods if pod.exit_code == 0 and pod.outcome]
    return job.has_completed or any(results)


def _reason_to_keep(observed: ObservedModel) -> StatusMessage | None:
    """Why the files are not deleted at all; None if they can be."""
    model, job = observed.model, observed.job
    if observed.namespace_is_terminating:
        message = messages.files_kept_in_namespace(model.metadata.namespace, model.spec.uri)
        return StatusMessage(FilesReason.NAMESPACE_TERMINATING, message)
    problem = find_address_problem(model)
    if problem is None and observed.shared_with is not None:
        problem = messages.files_shared(model.spec.uri, observed.shared_with)
    if problem is None and job is not None:
        verdict = judge(job)
        if verdict is not None and verdict.error.code == Reason.FOREIGN_FILES:
            problem = verdict.error.message
    if problem is None:
        return None
    return StatusMessage(Reason.FOREIGN_FILES, messages.files_kept(problem, model.spec.uri))


def _watch(model: Model, held: list[str], job: Job, now: datetime) -> ModelPlan:
    verdict = judge(job)
    if job.has_failed and not job.is_going:
        error = verdict.error if verdict else messages.job_failed(job.failure, disrupted=False)
        message = StatusMessage(error.code, messages.files_not_deleted(error.message))
        status = _with_condition(model, message, now)
        again = (job.failed_at or now) + timedelta(seconds=RETRY_SECONDS)
        if now < again:
            wait = (again - now).total_seconds() + 1
            return ModelPlan(status, held, requeue_after=wait)
        return ModelPlan(status, held, delete=DeleteJob(job.name, job.uid), requeue_after=1)
    message = explain(job, 1)
    if verdict is not None and not job.is_suspended:
        message = StatusMessage(verdict.error.code, verdict.error.message)
    elif message.reason == Reason.STARTING and not _has_waited(model):
        return ModelPlan(model.status, held, requeue_after=RECHECK_SECONDS)
    status = _with_condition(model, message, now)
    return ModelPlan(status, held, requeue_after=RECHECK_SECONDS)


def _has_waited(model: Model) -> bool:
    """Whether the condition names a cause that a starting pod ends, unlike the last failure."""
    waits = names.PENDING_REASONS | names.REFUSAL_REASONS
    waits |= {FilesReason.IN_USE, Reason.FOREIGN_OBJECT}
    return any(item.type == CONDITION and item.reason in waits for item in model.status.conditions)


def _with_condition(model: Model, message: StatusMessage, now: datetime) -> ModelStatus:
    old = next((item for item in model.status.conditions if item.type == CONDITION), None)
    condition = Condition(
        type=CONDITION,
        status="False",
        reason=message.reason,
        message=message.message[:4096],
        last_transition_time=old.last_transition_time if old else stamp(now),
        observed_generation=model.metadata.generation,
    )
    others = [item for item in model.status.conditions if item.type != CONDITION]
    return model.status.replace(conditions=[*others, condition])
