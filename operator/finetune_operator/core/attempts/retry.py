"""Whether another attempt follows one that failed."""

from dataclasses import dataclass
from itertools import takewhile

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.core.verdict import Verdict

ATTEMPTS_AT_MOST = 200  # also for causes that never count, such as nodes that come and go
LOSSES_AT_MOST = 3  # in a row: the next attempt finds the published model, but its word is lost too


@dataclass(frozen=True)
class Retry:
    """`refusal` is appended to the error message if there is no next attempt."""

    is_allowed: bool
    refusal: str = ""
    hint: str | None = None  # replaces the verdict's own


def may_retry(
    verdict: Verdict, former: list[Attempt], max_restarts: int, memory_refusal: str | None = None
) -> Retry:
    """former: attempts that ended before this one. memory_refusal: see `oom_retry.find_refusal`."""
    if verdict.is_users:
        return Retry(False)
    if len(former) + 1 >= ATTEMPTS_AT_MOST:
        return Retry(False, messages.attempts_spent(len(former) + 1))
    if verdict.error.code == Reason.RESULT_LOST:
        losses = 1 + _count_last(former, Reason.RESULT_LOST)
        is_allowed = losses < LOSSES_AT_MOST
        return Retry(is_allowed, "" if is_allowed else messages.results_lost_in_a_row(losses))
    if memory_refusal:
        hint = verdict.error.hint or messages.HINT_OUT_OF_MEMORY
        return Retry(False, memory_refusal, hint)
    if not verdict.is_counted:
        return Retry(True)
    counted = sum(bool(attempt.counted) for attempt in former)
    if counted >= max_restarts:
        return Retry(False, messages.restarts_spent(counted))
    return Retry(True)


def _count_last(attempts: list[Attempt], reason: str) -> int:
    """How many of the last attempts have ended with the reason, without a break."""
    return sum(1 for _ in takewhile(lambda item: item.reason == reason, reversed(attempts)))
