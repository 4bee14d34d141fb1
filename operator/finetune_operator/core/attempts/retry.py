"""Whether another attempt follows one that failed."""

from dataclasses import dataclass

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_operator.core.attempts.oom_retry import HINT, is_spent
from finetune_operator.core.verdict import Verdict

ATTEMPTS_AT_MOST = 200  # a bound on what is never counted: nodes that come and go


@dataclass(frozen=True)
class Retry:
    """`why_not` is a half-sentence for the user when there is no next attempt."""

    is_allowed: bool
    why_not: str = ""
    hint: str | None = None  # instead of the verdict's own


def may_retry(
    verdict: Verdict, former: list[Attempt], max_restarts: int, share: float = 1
) -> Retry:
    """`former`: attempts that ended before this one; `share`: of the micro-batch that it had."""
    if verdict.is_users:
        return Retry(False)
    if len(former) + 1 >= ATTEMPTS_AT_MOST:
        return Retry(False, f"gave up after {len(former) + 1} attempts")
    if verdict.error.code == Reason.OUT_OF_MEMORY and is_spent(share):
        why_not = f"{share:g} of the micro-batch did not help"
        return Retry(False, why_not, verdict.error.hint or HINT)
    if not verdict.is_counted:
        return Retry(True)
    counted = sum(bool(attempt.counted) for attempt in former)
    if counted >= max_restarts:
        return Retry(False, f"gave up after {counted} restarts (maxRestarts)")
    return Retry(True)
