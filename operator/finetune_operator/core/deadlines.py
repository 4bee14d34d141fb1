"""Deadlines: pending, training, one step, and the removal of the Jobs after the end."""

from datetime import datetime, timedelta

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport
from finetune_operator import messages
from finetune_operator.core.verdict import Verdict


def find_overdue(finetune: FineTune, now: datetime) -> ErrorInfo | None:
    """The deadline that has passed, if any. A suspension by the user stops the pending clock."""
    pending_limit = _pending_limit(finetune)
    active_limit = finetune.spec.active_deadline_seconds
    since = pending_since(finetune)
    if since and pending_limit is not None and _left(since, pending_limit, now) <= 0:
        cause = finetune.status.message or messages.UNKNOWN_CAUSE
        return messages.pending_too_long(pending_limit, cause)
    started = training_since(finetune)
    if started and active_limit is not None and _left(started, active_limit, now) <= 0:
        return messages.training_too_long(active_limit)
    return None


def seconds_to_next(finetune: FineTune, now: datetime) -> float | None:
    """Seconds until the next deadline; None if there is none."""
    spec = finetune.spec
    clocks = [
        (pending_since(finetune), _pending_limit(finetune)),
        (training_since(finetune), spec.active_deadline_seconds),
    ]
    left = [_left(since, limit, now) for since, limit in clocks if since and limit is not None]
    return min(left, default=None)


def _pending_limit(finetune: FineTune) -> int | None:
    """The user's limit, or the chart's when the FineTune was accepted."""
    resolved, limit = finetune.status.resolved, finetune.spec.pending_deadline_seconds
    return resolved.pending_deadline_seconds if limit is None and resolved else limit


def pending_since(finetune: FineTune) -> datetime | None:
    """When it was accepted or last stopped running; None while it is running or suspended."""
    status = finetune.status
    if status.state != State.PENDING or status.reason == Reason.SUSPENDED:
        return None
    running = next((item for item in status.conditions if item.type == "Running"), None)
    text = running.last_transition_time if running else status.started_at
    suspended = next((item for item in status.conditions if item.type == "Suspended"), None)
    times = [text, suspended.last_transition_time if suspended else None]
    return max((datetime.fromisoformat(time) for time in times if time), default=None)


def training_since(finetune: FineTune) -> datetime | None:
    """The start of the first attempt after the last suspension."""
    attempts = finetune.status.attempts
    suspended = [item.number for item in attempts if item.reason == Reason.SUSPENDED]
    counted = [item for item in attempts if item.number > max(suspended, default=0)]
    return datetime.fromisoformat(counted[0].started_at) if counted else None


def find_stall(finetune: FineTune, report: ProgressReport | None) -> Verdict | None:
    """The verdict on a training that has not finished a step for too long.

    Downloads, evaluations, and uploads have no limit.
    """
    limit = finetune.spec.stall_seconds
    if report is None or report.stage != Stage.TRAINING or report.last_step_age < limit:
        return None
    return Verdict.of(messages.stalled(report.last_step_age, report.step, limit))


def seconds_to_removal(finetune: FineTune, now: datetime) -> float | None:
    """Seconds until the Jobs of a finished FineTune are deleted; None if they are kept."""
    ttl, ended = finetune.spec.ttl_seconds_after_finished, finetune.status.finished_at
    if ttl is None or ended is None:
        return None
    return max(0.0, _left(datetime.fromisoformat(ended), ttl, now))


def _left(since: datetime, limit: int, now: datetime) -> float:
    return (since + timedelta(seconds=limit) - now).total_seconds()
