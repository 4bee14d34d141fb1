"""The wait between a crash and the next attempt.

The status write that ends an attempt also records the next one with the time of its start, so that
the wait costs no write of its own and survives a restart of the operator. The old Job is kept until
the new one is created. A recorded attempt without a Job is therefore still waiting if the old Job
exists. If a TTL or a user has deleted that, too, the Job is created again unless its pods have been
seen: a run that is lost costs more than a Job that its user has to delete twice.
"""

from datetime import datetime, timedelta
from typing import Any

from finetune_api.finetune_status import Attempt
from finetune_api.names import REFUSAL_REASONS, Stage, State
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import stamp
from finetune_operator.core.status_builder import StatusBuilder

LONGEST = 30  # times the first wait: five minutes after a first wait of ten seconds
RECOVERED_SECONDS = 600.0  # an attempt that lasted this long is not counted as a failed start


def seconds_to_wait(attempts: list[Attempt], first: float) -> float:
    """The wait before the next attempt: `first`, doubled for each consecutive crash.

    There is no wait after a failure that does not count against maxRestarts.
    """
    if not attempts or not attempts[-1].counted:
        return 0.0
    doublings = 0
    for attempt in reversed([item for item in attempts if item.counted]):
        if _lasted(attempt) >= RECOVERED_SECONDS:
            break
        doublings += 1
    return first * min(2.0 ** max(0, doublings - 1), LONGEST)


def _lasted(attempt: Attempt) -> float:
    if attempt.ended_at is None:
        return 0.0
    ended = datetime.fromisoformat(attempt.ended_at)
    return (ended - datetime.fromisoformat(attempt.started_at)).total_seconds()


def plan_attempt(builder: StatusBuilder, number: int, wait: float, record: dict[str, Any]) -> str:
    """Record the next attempt and return its start as the status has it. record: its size."""
    starts_at = stamp(builder.now + timedelta(seconds=wait))
    builder.attempt(number, started_at=starts_at, **record)
    return starts_at


def find_planned(builder: StatusBuilder) -> Attempt | None:
    """The newest attempt if it was recorded with a wait before it and is still open."""
    if len(builder.status.attempts) < 2:
        return None
    former, newest = builder.status.attempts[-2:]
    is_later = former.ended_at is not None and newest.started_at > former.ended_at
    return newest if is_later and newest.ended_at is None else None


def find_refused(builder: StatusBuilder) -> Attempt | None:
    """The newest attempt if the API server refuses to create its Job, as the status says.

    The Job before it may be gone: it is deleted if a quota counts it.
    """
    status = builder.status
    is_refused = status.reason in REFUSAL_REASONS and status.stage == Stage.QUEUED
    newest = status.attempts[-1] if status.attempts else None
    is_open = newest is not None and newest.ended_at is None
    return newest if is_refused and is_open and status.state == State.PENDING else None


def seconds_left(
    observed: Observed,
    builder: StatusBuilder,
    planned: Attempt,
    longest: float,
    *,
    is_freed: bool = False,
) -> float | None:
    """Seconds until the Job is created; None if it may have been created and deleted.

    A wait longer than the longest one comes from a clock that was set back, and is over.
    is_freed: the Job before it was deleted at the beginning of the wait.
    """
    former = observed.attempts.get(planned.number - 1)
    is_waiting = former is not None and not former.is_going
    left = (datetime.fromisoformat(planned.started_at) - builder.now).total_seconds()
    if left <= 0:
        return 0.0 if is_waiting else None
    return left if (is_waiting or is_freed) and left <= longest else 0.0


def end_planned(
    builder: StatusBuilder, planned: Attempt, reason: str, message: str | None = None
) -> None:
    """Close an attempt that never started: it took no time."""
    now = stamp(builder.now)
    started = min(planned.started_at, now)
    builder.attempt(
        planned.number, started_at=started, ended_at=now, reason=reason, message=message
    )
