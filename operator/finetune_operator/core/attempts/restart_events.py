"""The Event Restarted: once for each attempt that continues from another one."""

from finetune_api.names import Reason
from finetune_operator import messages
from finetune_operator.core.status_builder import StatusBuilder


def find_resumed_step(builder: StatusBuilder, number: int) -> int | None:
    """The step of the checkpoint that the attempt continued from, once it is recorded."""
    found = {attempt.number: attempt for attempt in builder.status.attempts}.get(number)
    return found.resumed_from_step if found else None


def record_restart(builder: StatusBuilder, number: int, step: int | None) -> None:
    """Record the restart once. step: None if the attempt ended before it trained."""
    if step is not None:
        builder.attempt(number, resumed_from_step=step)
    attempts = {attempt.number: attempt for attempt in builder.status.attempts}
    former = attempts.get(number - 1)
    if former is not None and former.reason == Reason.SUSPENDED:
        return  # recorded as Resumed
    cause = former.message if former and former.message else messages.UNKNOWN_CAUSE
    builder.record_event(messages.restarted(number, step, cause))
