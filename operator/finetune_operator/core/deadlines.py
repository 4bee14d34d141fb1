"""What takes too long: pending, training as a whole, a step; and children kept for too long."""

from datetime import datetime, timedelta

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason, Stage, State
from finetune_api.outcome import ProgressReport
from finetune_operator.core.verdict import Verdict


def find_overdue(finetune: FineTune, now: datetime) -> ErrorInfo | None:
    """The deadline that has passed, if any. A person's suspension stops the pending clock."""
    spec = finetune.spec
    since = pending_since(finetune)
    if since and _is_past(since, spec.pending_deadline_seconds, now):
        why = finetune.status.message or "it has not started"
        return ErrorInfo(
            code=Reason.DEADLINE_EXCEEDED,
            param="pendingDeadlineSeconds",
            message=f"pending for more than {spec.pending_deadline_seconds} s: {why}"[:2048],
            hint="free the resources, ask for less, or raise pendingDeadlineSeconds",
        )
    started = training_since(finetune)
    if started and _is_past(started, spec.active_deadline_seconds, now):
        return ErrorInfo(
            code=Reason.DEADLINE_EXCEEDED,
            param="activeDeadlineSeconds",
            message=f"training took more than {spec.active_deadline_seconds} s, all attempts "
            "and their waiting counted",
            hint="the checkpoints are kept; raise activeDeadlineSeconds in a new FineTune",
        )
    return None


def seconds_to_next(finetune: FineTune, now: datetime) -> float | None:
    """Until a deadline passes; None: there is none."""
    spec = finetune.spec
    clocks = [
        (pending_since(finetune), spec.pending_deadline_seconds),
        (training_since(finetune), spec.active_deadline_seconds),
    ]
    left = [_left(since, limit, now) for since, limit in clocks if since and limit is not None]
    return min(left, default=None)


def pending_since(finetune: FineTune) -> datetime | None:
    """When it stopped running, or was accepted; None while it runs or is suspended."""
    status = finetune.status
    if status.state != State.PENDING or status.reason == Reason.SUSPENDED:
        return None
    running = next((item for item in status.conditions if item.type == "Running"), None)
    text = running.last_transition_time if running else status.started_at
    suspended = next((item for item in status.conditions if item.type == "Suspended"), None)
    times = [text, suspended.last_transition_time if suspended else None]
    return max((datetime.fromisoformat(time) for time in times if time), default=None)


def training_since(finetune: FineTune) -> datetime | None:
    """When the first attempt began, or the first one after the last suspension."""
    attempts = finetune.status.attempts
    suspended = [item.number for item in attempts if item.reason == Reason.SUSPENDED]
    counted = [item for item in attempts if item.number > max(suspended, default=0)]
    return datetime.fromisoformat(counted[0].started_at) if counted else None


def find_stall(finetune: FineTune, report: ProgressReport | None) -> Verdict | None:
    """Rank 0 answers, and says that no step was finished for too long.

    Only while it trains: a download, an evaluation or an upload takes as long as it takes.
    """
    limit = finetune.spec.stall_seconds
    if report is None or report.stage != Stage.TRAINING or report.last_step_age < limit:
        return None
    return Verdict.of(
        ErrorInfo(
            code=Reason.STALLED,
            message=f"no step was finished for {report.last_step_age:.0f} s after step "
            f"{report.step} (stallSeconds {limit})",
            hint="look at the pods' logs: a collective that waits for a rank, or steps slower "
            "than stallSeconds",
        )
    )


def seconds_to_removal(finetune: FineTune, now: datetime) -> float | None:
    """Until the Jobs of an ended FineTune go, 0 when it is time; None: they stay."""
    ttl, ended = finetune.spec.ttl_seconds_after_finished, finetune.status.finished_at
    if ttl is None or ended is None:
        return None
    return max(0.0, _left(datetime.fromisoformat(ended), ttl, now))


def _is_past(since: datetime, limit: int | None, now: datetime) -> bool:
    return limit is not None and _left(since, limit, now) <= 0


def _left(since: datetime, limit: int, now: datetime) -> float:
    return (since + timedelta(seconds=limit) - now).total_seconds()
