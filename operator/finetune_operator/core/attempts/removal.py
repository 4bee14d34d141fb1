"""The Jobs that a FineTune no longer needs, and that would hold resources by themselves.

A creation may be committed long after its client gave up, and another operator may act on an old
plan. Nothing prevents either, so every live Job that does not belong to the recorded state is found
and deleted: after the end, all of them; before it, those of ended attempts and a late prepare Job.
"""

from datetime import datetime

from finetune_api.names import Reason, State
from finetune_operator.core.deadlines import seconds_to_removal
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, DeleteJob, Plan, left_of

SIDECAR_SECONDS = 30.0  # native sidecars end by themselves, and the Job with them
STRAGGLER_SECONDS = 600.0  # for the other pods of the attempt that published, or failed
CONTROLLER_SECONDS = 600.0  # a busy Job controller marks a Job late that holds nothing any more


def decide_removal(observed: Observed, now: datetime) -> Plan:
    """The plan for a finished FineTune: its live Jobs go, and after its TTL all Jobs.

    Status, Model, and files in S3 stay.
    """
    status = observed.finetune.status
    left = seconds_to_removal(observed.finetune, now)
    if left is not None and left <= 0:
        return Plan(status, all_jobs(observed))
    waits = [(job, _seconds_to_live(observed, job, now)) for job in observed.jobs if job.is_live]
    actions = tuple(DeleteJob(job.name, job.uid) for job, wait in waits if wait <= 0)
    times = [wait for _, wait in waits if wait > 0] + ([] if left is None else [left])
    return Plan(status, actions, min(times) + 1 if times else None)


def all_jobs(observed: Observed) -> tuple[Action, ...]:
    return tuple(DeleteJob(job.name, job.uid) for job in observed.jobs if not job.is_going)


def find_stale_prepare(observed: Observed, now: datetime) -> tuple[DeleteJob, ...]:
    """The live prepare Job of a FineTune whose status has its result already."""
    job, resolved = observed.prepare_job, observed.finetune.status.resolved
    if job is None or not job.is_live or resolved is None or resolved.hyperparameters is None:
        return ()
    is_ending = job.has_worked and _seconds_to_end(job, now) > 0
    return () if is_ending else (DeleteJob(job.name, job.uid),)


def has_dead_pod(job: Job) -> bool:
    """Whether a pod has failed, so that the Job controller ends the others and then the Job."""
    return job.has_failed or any(pod.phase == "Failed" for pod in job.pods)


def _seconds_to_live(observed: Observed, job: Job, now: datetime) -> float:
    """Seconds until a live Job of a finished FineTune is deleted: 0 unless it ends by itself."""
    text = observed.finetune.status.finished_at
    ended_at = datetime.fromisoformat(text) if text else None
    if job.has_worked:
        is_late = ended_at is None or (job.created_at is not None and job.created_at > ended_at)
        waits = 0.0 if is_late or not job.is_over else left_of(SIDECAR_SECONDS, ended_at, now)
        return max(waits, _seconds_to_end(job, now))
    if ended_at is None or not _may_end_by_itself(observed, job, ended_at):
        return 0.0
    return left_of(STRAGGLER_SECONDS, ended_at, now)


def _may_end_by_itself(observed: Observed, job: Job, ended_at: datetime) -> bool:
    """Whether it is the last attempt, and not a Job of its name that was created after the end.

    A new Job has no pod that has ended. Times are whole seconds, and a life may be shorter. A
    failed one is kept for its logs, if one of its pods has failed.
    """
    status = observed.finetune.status
    if job.attempt is None:
        return False
    if status.state == State.SUCCEEDED:
        has_published = job.rank0 is not None and job.rank0.has_worked
        is_older = job.created_at is not None and job.created_at < ended_at
        ended = {item.number: item.reason for item in status.attempts}
        return (has_published or is_older) and ended.get(job.attempt) == Reason.SUCCEEDED
    is_newest = job.attempt == max(observed.attempts)
    return status.state == State.FAILED and is_newest and has_dead_pod(job)


def _seconds_to_end(job: Job, now: datetime) -> float:
    """Seconds for the injected containers to end, or for the Job if all of its pods have ended."""
    ended = max((pod.ended_at for pod in job.pods if pod.ended_at), default=None)
    return left_of(CONTROLLER_SECONDS if job.is_over else SIDECAR_SECONDS, ended, now)
