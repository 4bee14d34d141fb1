"""A Job that was deleted, but not by this operator: a CPU pod looks for the model in S3.

The Job of an attempt is never created again: who deleted it did not want it to train. It may have
published a model before, and only S3 knows.
"""

from finetune_api.finetune_status import Attempt, ErrorInfo, Resolved
from finetune_api.names import Reason, Stage
from finetune_operator import messages
from finetune_operator.build.lookup_job import build_lookup_job
from finetune_operator.core.attempts.results import find_loss
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.pending import explain
from finetune_operator.core.plan import Create, DeleteJob, Plan, stamp
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.core.verdict import judge
from finetune_operator.settings import Settings

LOOKUP_SECONDS = 15.0  # between observations
LOOKUPS_AT_MOST = 3  # whose result was lost


def was_deleted(attempt: Attempt | None) -> bool:
    """Whether the Job of the attempt was deleted, and a lookup follows."""
    return attempt is not None and attempt.reason == Reason.JOB_DELETED


def decide_lookup(
    observed: Observed, builder: StatusBuilder, settings: Settings, number: int
) -> Plan:
    """End attempt `number`, and wait for the lookup Job, which has not found a model yet."""
    resolved, lookup = builder.status.resolved, observed.lookup_job
    assert resolved is not None
    deletion = _end_attempt(observed, builder, number)
    if _is_stopping(observed.attempts.get(number)):
        builder.pending(Stage.STARTING, messages.looking_up(deletion))
        return Plan(builder.finish(), (), LOOKUP_SECONDS)
    if lookup is None:
        return _start(observed, builder, settings, resolved, deletion)
    loss = find_loss(lookup, messages.LOOKUP_JOB, builder.now)
    if loss is not None and not lookup.is_going:
        return _start_again(builder, lookup, number, deletion, loss)
    verdict = judge(lookup)
    if verdict is not None and (verdict.is_users or lookup.has_failed):
        if verdict.error.code == Reason.DATA_NOT_FOUND:
            return _fail(builder, number, messages.nothing_published(deletion))
        cause = _cause(verdict.error)
        return _fail(builder, number, messages.lookup_failed(deletion, cause))
    message = explain(lookup, 1)
    if verdict is not None and not lookup.is_suspended:
        message = messages.looking_up_again(deletion, verdict.error)
    elif message.reason == Reason.STARTING:
        message = messages.looking_up(deletion)
    builder.pending(Stage.STARTING, message)
    return Plan(builder.finish(), (), LOOKUP_SECONDS)


def _cause(error: ErrorInfo) -> str:
    """The last line of a log says more than an exit code: an older image has no lookup."""
    is_unknown = error.code == Reason.RANK_CRASHED and error.log
    return error.log[-1] if is_unknown and error.log else error.message


def _end_attempt(observed: Observed, builder: StatusBuilder, number: int) -> str:
    """Record the end of the attempt once. Return the deletion in words."""
    known = {item.number: item for item in builder.status.attempts}.get(number)
    if known is not None and known.ended_at is not None and known.message:
        return known.message
    job = observed.attempts.get(number)
    deleted_at = stamp(job.deleted_at) if job and job.deleted_at else None
    deletion = messages.job_was_deleted(number, deleted_at)
    ended_at = stamp(builder.now)
    builder.attempt(number, ended_at=ended_at, reason=Reason.JOB_DELETED, message=deletion)
    return deletion


def _is_stopping(job: Job | None) -> bool:
    """Whether pods of the deleted Job may still publish: a foreground deletion waits for them."""
    return job is not None and job.is_going and bool(job.pods) and not job.has_worked


def _start(
    observed: Observed,
    builder: StatusBuilder,
    settings: Settings,
    resolved: Resolved,
    deletion: str,
) -> Plan:
    builder.pending(Stage.STARTING, messages.looking_up(deletion))
    create = Create(build_lookup_job(observed.finetune, resolved, settings))
    return Plan(builder.finish(), (create,), LOOKUP_SECONDS)


def _start_again(
    builder: StatusBuilder, lookup: Job, number: int, deletion: str, loss: ErrorInfo
) -> Plan:
    """Delete a lookup Job whose result is lost, once the status has it.

    The next observation creates another.
    """
    told = messages.looked_up_again(lookup.uid, loss)
    builder.record_event(told)
    if builder.count_events(Reason.RESULT_LOST, messages.LOOKUP_KEY) > LOOKUPS_AT_MOST:
        return _fail(builder, number, messages.lookup_failed(deletion, loss.message))
    builder.pending(Stage.STARTING, messages.looking_up(deletion))
    deletions = (DeleteJob(lookup.name, lookup.uid),) if builder.was_recorded(told) else ()
    return Plan(builder.finish(), deletions, 0)


def _fail(builder: StatusBuilder, number: int, error: ErrorInfo) -> Plan:
    builder.attempt(number, message=error.message[:1024])
    return Plan(builder.fail(error).finish())
