"""The status while a decision is made: small steps that each leave it consistent."""

from datetime import datetime
from typing import Any, Literal, Self

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, Condition, ErrorInfo, EventEntry, FineTuneStatus
from finetune_api.names import Reason, Stage, State
from finetune_operator.core.plan import stamp

EVENTS_KEPT = 64
DATA_VALID = "DataValid"  # whatever the state's own reason and message are by now
TURNS = frozenset({"Suspended", "Resumed"})

Verdict = tuple[Literal["True", "False", "Unknown"], str]  # status of the condition, reason


class StatusBuilder:
    """Collects changes to a FineTune's status; `finish` gives the value to write."""

    def __init__(self, finetune: FineTune, now: datetime) -> None:
        self.finetune = finetune
        self.now = now
        self.status = finetune.status

    def set(self, **changes: Any) -> Self:
        self.status = self.status.replace(**changes)
        return self

    def say(
        self, reason: str, message: str, level: Literal["info", "warning", "error"] = "info"
    ) -> Self:
        """A line of the story. Level-triggered: the same words twice are one event."""
        if any(event.message == message[:1024] for event in self.status.events):
            return self
        return self._tell(reason, message, level)

    def say_again(self, reason: str, message: str) -> Self:
        """A line that may be told more than once: the caller knows when it is news."""
        return self._tell(reason, message, "info")

    def say_turn(self, reason: str, message: str) -> Self:
        """Of a pair that may alternate: told when the other one was the last."""
        turns = [event.reason for event in self.status.events if event.reason in TURNS]
        return self if turns[-1:] == [reason] else self._tell(reason, message, "info")

    def _tell(self, reason: str, message: str, level: Literal["info", "warning", "error"]) -> Self:
        entry = EventEntry(at=stamp(self.now), level=level, reason=reason, message=message[:1024])
        return self.set(events=[*self.status.events, entry][-EVENTS_KEPT:])

    def pending(self, stage: str, reason: str, message: str) -> Self:
        return self.set(state=State.PENDING, stage=stage, reason=reason, message=message)

    def suspend(self) -> Self:
        self.say_turn("Suspended", "Fine-tune suspended")
        message = "suspended by spec.suspend; set it to false to go on from the last checkpoint"
        return self.pending(Stage.QUEUED, Reason.SUSPENDED, message)

    def running(self, stage: str, message: str) -> Self:
        return self.set(state=State.RUNNING, stage=stage, reason=Reason.TRAINING, message=message)

    def fail(self, error: ErrorInfo) -> Self:
        self.say(error.code, f"Fine-tune failed. {error.message}", "error")
        return self._end(State.FAILED, error.code, error.message).set(error=error)

    def succeed(self, reason: str, message: str) -> Self:
        return self._end(State.SUCCEEDED, reason, message)

    def cancel(self, message: str) -> Self:
        self.say(Reason.CANCELLED, "Fine-tune cancelled")
        return self._end(State.CANCELLED, Reason.CANCELLED, message)

    def _end(self, state: str, reason: str, message: str) -> Self:
        return self.set(
            state=state, stage=None, reason=reason, message=message, finished_at=stamp(self.now)
        )

    def attempt(self, number: int, **changes: Any) -> Self:
        """Change one attempt, or add it."""
        known = {attempt.number: attempt for attempt in self.status.attempts}
        found = known.get(number, Attempt(number=number, started_at=stamp(self.now)))
        known[number] = found.replace(**changes)
        return self.set(attempts=[known[key] for key in sorted(known)])

    def finish(self) -> FineTuneStatus:
        """The status with its conditions, which follow from the state alone."""
        generation = self.finetune.metadata.generation
        before = {item.type: item for item in self.finetune.status.conditions}
        conditions = []
        for kind, (verdict, reason) in _conditions(self.status).items():
            old = before.get(kind)
            is_told = kind == "Ready" or (verdict == "True" and reason != DATA_VALID)
            message = self.status.message or "" if is_told else ""
            conditions.append(
                Condition(
                    type=kind,
                    status=verdict,
                    reason=reason,
                    message=message,
                    observed_generation=generation,
                    last_transition_time=(
                        old.last_transition_time
                        if old is not None and old.status == verdict
                        else stamp(self.now)
                    ),
                )
            )
        return self.status.replace(conditions=conditions, observed_generation=generation)


def _conditions(status: FineTuneStatus) -> dict[str, Verdict]:
    """Ours, and kstatus' three, so that kubectl wait, Argo CD and Flux know when it is done."""
    reason = status.reason or Reason.ACCEPTED
    state = status.state
    succeeded, failed = state == State.SUCCEEDED, state in {State.FAILED, State.CANCELLED}
    prepared = status.resolved is not None and status.resolved.hyperparameters is not None

    def verdict(holds: bool) -> Verdict:
        return ("True" if holds else "False", reason)

    if prepared:
        validated: Verdict = ("True", DATA_VALID)
    elif state == State.FAILED:
        validated = ("False", reason)
    else:
        validated = ("Unknown", Reason.VALIDATING)
    return {
        "Validated": validated,
        "Running": verdict(state == State.RUNNING),
        "Suspended": verdict(state == State.PENDING and reason == Reason.SUSPENDED),
        "Succeeded": verdict(succeeded),
        "Failed": verdict(state == State.FAILED),
        "Ready": verdict(succeeded),
        "Reconciling": verdict(state not in names.TERMINAL_STATES),
        "Stalled": verdict(failed),
    }
