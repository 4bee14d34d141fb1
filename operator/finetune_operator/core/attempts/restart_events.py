"""What is told of an attempt that goes on where a former one was."""

from finetune_api.names import Reason
from finetune_operator.core.status_builder import StatusBuilder


def find_step(draft: StatusBuilder, number: int) -> int | None:
    """The checkpoint's step that the attempt went on from, once that is recorded."""
    found = {attempt.number: attempt for attempt in draft.status.attempts}.get(number)
    return found.resumed_from_step if found else None


def say_restarted(draft: StatusBuilder, number: int, step: int) -> None:
    draft.attempt(number, resumed_from_step=step)
    _say_cause(draft, number, f"Fine-tune restarted from step {step}")


def say_restarted_in_vain(draft: StatusBuilder, number: int) -> None:
    """It ended before it trained."""
    _say_cause(draft, number, f"Fine-tune restarted, attempt {number}")


def _say_cause(draft: StatusBuilder, number: int, words: str) -> None:
    """Each restart is one Event: when its attempt works, or when it ends without having worked."""
    attempts = {attempt.number: attempt for attempt in draft.status.attempts}
    former = attempts.get(number - 1)
    if former is not None and former.reason == Reason.SUSPENDED:
        return  # told as resumed
    why = former.message if former and former.message else "unknown"
    draft.say("Restarted", f"{words}: {why}")
