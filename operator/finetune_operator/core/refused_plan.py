"""The status and the next steps when the API server refuses a request of a plan."""

from datetime import datetime

from finetune_api import names
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.names import Reason, Stage, State
from finetune_operator import messages
from finetune_operator.core.deadlines import seconds_to_next
from finetune_operator.core.events.numbers import with_event
from finetune_operator.core.observed import Job, Observed
from finetune_operator.core.plan import Action, DeleteJob, Plan, stamp
from finetune_operator.core.refusals import CREATE, DELETE, Refusal, explain_refusal, keep_known
from finetune_operator.core.status_builder import StatusBuilder
from finetune_operator.messages import StatusMessage

# Events of a plan that are true although one of its requests is refused.
HELD_EVENTS = frozenset({"Created", "Advice", "Resumed"})

RETRY_SECONDS = 30.0  # of a deletion that the training does not wait for


def refused_plan(observed: Observed, plan: Plan, refusal: Refusal, now: datetime) -> Plan:
    """Explain the refusal in the status, so that deadlines run, and leave the rest to a retry.

    The deletions of the plan free a place in a quota that is used up.
    """
    finetune, before = observed.finetune, observed.finetune.status
    if plan.status.state == State.SUCCEEDED and refusal.verb == DELETE:
        # The Model exists, and another Job changes nothing. Its deletion is tried again.
        return Plan(plan.status, (), plan.requeue_after)
    found = explain_refusal(refusal, finetune)
    is_held = plan.status.state in names.TERMINAL_STATES or _starts(refusal, plan)
    message = keep_known(before, found)
    status = _held(observed, plan, refusal, message, now) if is_held else before
    if not is_held:
        status = _amended(StatusBuilder(finetune, now), plan.status, found, message)
    if not is_held and status.state == State.RUNNING:  # the training is watched as usual
        return Plan(status, (), plan.requeue_after or RETRY_SECONDS)
    left = seconds_to_next(finetune.replace(status=status), now)
    wait = left + 1 if left is not None and left > 0 else None  # one that has passed is no haste
    return Plan(status, _freeing(observed, refusal, found), wait, is_refused=True)


def unread_plan(observed: Observed, refusal: Refusal, now: datetime) -> Plan:
    """Explain that the children of a FineTune cannot be read. Nothing else is known or changes."""
    before = observed.finetune.status
    message = keep_known(before, explain_refusal(refusal))
    builder = StatusBuilder(observed.finetune, now)
    if before.started_at is None:
        builder.set(started_at=stamp(now))
        builder.record_event(messages.created(observed.finetune.metadata.name))
    kept = StatusMessage(before.reason or message.reason, message.message)
    if before.state == State.RUNNING:
        builder.running(before.stage or Stage.TRAINING, kept)
    elif before.reason == Reason.SUSPENDED:
        builder.pending(before.stage or Stage.QUEUED, kept)
    else:
        # In the stage `queued` the Job of a refused attempt would be missing.
        has_job = before.stage == Stage.QUEUED and before.reason not in names.REFUSAL_REASONS
        stage = Stage.STARTING if has_job else before.stage or Stage.VALIDATING
        builder.pending(stage, message)
    return Plan(builder.finish(), is_refused=True)


def _starts(refusal: Refusal, plan: Plan) -> bool:
    """Whether pods or a Model are missing without it. A training that runs needs no new Service."""
    is_creation = refusal.verb == CREATE
    needs_it = refusal.kind != "Service" or plan.status.reason != Reason.SUSPENDED
    return is_creation and needs_it and plan.status.state != State.RUNNING


def _held(
    observed: Observed, plan: Plan, refusal: Refusal, message: StatusMessage, now: datetime
) -> FineTuneStatus:
    """The status before the plan, with what the plan knows and does not depend on the request."""
    before, after = observed.finetune.status, plan.status
    builder = StatusBuilder(observed.finetune, now)
    known = {_identity(entry) for entry in before.events}
    events = before.events
    for entry in after.events:
        if entry.reason in HELD_EVENTS and _identity(entry) not in known:
            events = with_event(events, entry)  # others are left out, and so are their numbers
    builder.set(
        started_at=before.started_at or after.started_at,
        resolved=after.resolved or before.resolved,
        events=events,
    )
    is_running = before.state == State.RUNNING
    if refusal.verb != CREATE and is_running:
        text = StatusMessage(before.reason or Reason.TRAINING, message.message)
        return builder.running(before.stage or Stage.TRAINING, text).finish()
    if before.attempts and after.state not in names.TERMINAL_STATES:
        # The end of the attempt before this one outlives its pods.
        builder.set(attempts=after.attempts)
    if refusal.kind == "Model":
        stage: str = Stage.PUBLISHING
    else:
        is_checked = builder.status.resolved and builder.status.resolved.hyperparameters
        stage = Stage.QUEUED if is_checked else Stage.VALIDATING
    return builder.pending(stage, message).finish()


def _amended(
    builder: StatusBuilder, after: FineTuneStatus, found: StatusMessage, message: StatusMessage
) -> FineTuneStatus:
    """The status of the plan, which also names the object that remains or is missing."""
    builder.set(**dict(after))
    stage = after.stage or Stage.STARTING
    text = f"{after.message}; {found.message}"
    if after.state == State.RUNNING:
        kept = StatusMessage(after.reason or Reason.TRAINING, text)
        return builder.running(stage, keep_known(builder.finetune.status, kept)).finish()
    if after.reason == Reason.SUSPENDED:
        kept = keep_known(builder.finetune.status, StatusMessage(Reason.SUSPENDED, text))
        return builder.pending(stage, kept).finish()
    return builder.pending(stage, message).finish()


def _freeing(observed: Observed, refusal: Refusal, found: StatusMessage) -> tuple[Action, ...]:
    """The Jobs that have ended and whose result the written status has, if a quota counts Jobs."""
    if found.reason != Reason.QUOTA_EXCEEDED or refusal.kind != "Job":
        return ()
    status = observed.finetune.status
    is_checked = status.resolved is not None and status.resolved.hyperparameters is not None
    ended = {item.number for item in status.attempts if item.ended_at is not None}
    prepare = observed.prepare_job
    recorded = [job for number, job in observed.attempts.items() if number in ended]
    if prepare is not None and is_checked:
        recorded.append(prepare)
    return tuple(
        DeleteJob(job.name, job.uid) for job in recorded if not job.is_going and _has_ended(job)
    )


def _has_ended(job: Job) -> bool:
    return job.has_failed or job.has_completed or job.is_over


def _identity(entry: EventEntry) -> tuple[str, int | None, str | None]:
    return entry.reason, entry.attempt, entry.key
