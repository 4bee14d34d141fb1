"""How long a crash waits for its next attempt; the plan for it stands in the attempts' records.

The attempt to come is recorded, with the time of its start, by the write that ends the former one:
so the wait costs no write of its own and outlives the operator. Until the new Job is made the
former one's Job stays: a recorded attempt without a Job was not made yet while it is there, and
was removed by somebody when it is gone.
"""

from datetime import datetime, timedelta

from finetune_api.finetune_status import Attempt
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import stamp
from finetune_operator.core.status_builder import StatusBuilder

LONGEST = 30  # times the first wait: five minutes of ten seconds
RECOVERED_SECONDS = 600.0  # an attempt that lasted so long was no start that failed


def seconds_to_wait(attempts: list[Attempt], first: float) -> float:
    """Before the attempt that follows these: `first`, doubled for each crash in a row.

    What is not counted against maxRestarts is nobody's fault and waits for nothing.
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


def plan_attempt(draft: StatusBuilder, number: int, wait: float, share: float | None) -> str:
    """Record the attempt to come; when it starts, in the status' words."""
    starts_at = stamp(draft.now + timedelta(seconds=wait))
    draft.attempt(number, started_at=starts_at, micro_batch_share=share)
    return starts_at


def find_planned(draft: StatusBuilder) -> Attempt | None:
    """The newest attempt, when it was recorded with a wait before it and has not ended."""
    if len(draft.status.attempts) < 2:
        return None
    former, newest = draft.status.attempts[-2:]
    is_later = former.ended_at is not None and newest.started_at > former.ended_at
    return newest if is_later and newest.ended_at is None else None


def seconds_left(
    seen: Observed, draft: StatusBuilder, planned: Attempt, first: float
) -> float | None:
    """Until its Job is to be made, 0 when it is time; None: it was made, and somebody removed it.

    A wait that is longer than any ever planned was read from another clock, and is over.
    """
    former = seen.attempts.get(planned.number - 1)
    is_marked = former is not None and not former.is_going
    left = (datetime.fromisoformat(planned.started_at) - draft.now).total_seconds()
    if left <= 0:
        return 0.0 if is_marked else None
    return left if is_marked and left <= first * LONGEST else 0.0


def end_planned(
    draft: StatusBuilder, planned: Attempt, reason: str, message: str | None = None
) -> None:
    """It never began: its record takes no time."""
    now = stamp(draft.now)
    started = min(planned.started_at, now)
    draft.attempt(planned.number, started_at=started, ended_at=now, reason=reason, message=message)
