"""Builds the new status of a FineTune in small steps that each leave it consistent."""

from datetime import datetime
from typing import Any, Literal, Self

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, Condition, ErrorInfo, EventEntry, FineTuneStatus
from finetune_api.names import Reason, Stage, State
from finetune_operator import messages
from finetune_operator.core.events.numbers import with_event
from finetune_operator.core.plan import stamp
from finetune_operator.messages import Event, StatusMessage
from finetune_operator.messages.text import MESSAGE_CHARACTERS

EVENT_CHARACTERS = 1024
DATA_VALID = "DataValid"  # the reason of the condition Validated, which outlives later reasons

ConditionStatus = tuple[Literal["True", "False", "Unknown"], str]  # status and reason


class StatusBuilder:
    """Collects changes to the status of a FineTune. `finish` returns the value to write."""

    def __init__(self, finetune: FineTune, now: datetime) -> None:
        self.finetune = finetune
        self.now = now
        self.status = finetune.status

    def set(self, **changes: Any) -> Self:
        self.status = self.status.replace(**changes)
        return self

    def record_event(self, event: Event) -> Self:
        """Add an Event unless the status has it: decisions are repeated, Events are not."""
        if _has(self.status, event):
            return self
        return self.set(events=with_event(self.status.events, to_entry(event, self.now)))

    def was_recorded(self, event: Event) -> bool:
        """Whether the status that the API server has already has the Event."""
        return _has(self.finetune.status, event)

    def count_events(self, reason: str, prefix: str) -> int:
        """How many Events of the reason have a key with the prefix."""
        keys = [item.key or "" for item in self.status.events if item.reason == reason]
        return sum(key.startswith(prefix) for key in keys)

    def pending(self, stage: str, message: StatusMessage) -> Self:
        return self._state(State.PENDING, stage, message)

    def suspend(self, attempt: int | None) -> Self:
        """Suspend the FineTune. attempt: the newest one, if there is one."""
        self.record_event(messages.suspended(attempt))
        return self.pending(Stage.QUEUED, messages.SUSPENDED_BY_USER)

    def running(self, stage: str, message: StatusMessage) -> Self:
        return self._state(State.RUNNING, stage, message)

    def fail(self, error: ErrorInfo) -> Self:
        self.record_event(messages.failed(error)).set(error=error)
        return self._end(State.FAILED, StatusMessage(error.code, error.message))

    def succeed(self, message: StatusMessage) -> Self:
        return self._end(State.SUCCEEDED, message)

    def cancel(self) -> Self:
        self.record_event(messages.CANCELLED)
        return self._end(State.CANCELLED, messages.CANCELLED_BY_USER)

    def _end(self, state: str, message: StatusMessage) -> Self:
        return self._state(state, None, message).set(finished_at=stamp(self.now))

    def _state(self, state: str, stage: str | None, message: StatusMessage) -> Self:
        text = message.message[:MESSAGE_CHARACTERS]
        return self.set(state=state, stage=stage, reason=message.reason, message=text)

    def attempt(self, number: int, **changes: Any) -> Self:
        """Change an attempt, or add it."""
        known = {attempt.number: attempt for attempt in self.status.attempts}
        found = known.get(number, Attempt(number=number, started_at=stamp(self.now)))
        known[number] = found.replace(**changes)
        return self.set(attempts=[known[key] for key in sorted(known)])

    def finish(self) -> FineTuneStatus:
        """Return the status with its conditions, which depend only on the state."""
        generation = self.finetune.metadata.generation
        before = {item.type: item for item in self.finetune.status.conditions}
        conditions = []
        for kind, (value, reason) in _conditions(self.status).items():
            old = before.get(kind)
            has_message = kind == "Ready" or (value == "True" and reason != DATA_VALID)
            message = self.status.message or "" if has_message else ""
            conditions.append(
                Condition(
                    type=kind,
                    status=value,
                    reason=reason,
                    message=message,
                    observed_generation=generation,
                    last_transition_time=(
                        old.last_transition_time
                        if old is not None and old.status == value
                        else stamp(self.now)
                    ),
                )
            )
        return self.status.replace(conditions=conditions, observed_generation=generation)


def to_entry(event: Event, now: datetime) -> EventEntry:
    """The entry for the status, without its number, and for the Kubernetes Event."""
    return EventEntry(
        at=stamp(now),
        level=event.level,
        reason=event.reason,
        message=event.message[:EVENT_CHARACTERS],
        attempt=event.attempt,
        key=event.key,
    )


def _has(status: FineTuneStatus, event: Event) -> bool:
    return any(_is_same(entry, event) for entry in status.events)


def _is_same(entry: EventEntry, event: Event) -> bool:
    """Compare the identity, or the text of an entry that has no attempt and no key.

    Entries lose these fields under a CRD of an older version, which prunes them.
    """
    if (entry.reason, entry.attempt, entry.key) == (event.reason, event.attempt, event.key):
        return True
    has_identity = entry.attempt is not None or entry.key is not None
    return not has_identity and entry.message == event.message[:EVENT_CHARACTERS]


def _conditions(status: FineTuneStatus) -> dict[str, ConditionStatus]:
    """Our conditions, and the three of kstatus for kubectl wait, Argo CD, and Flux."""
    reason = status.reason or Reason.ACCEPTED
    state = status.state
    succeeded, failed = state == State.SUCCEEDED, state in {State.FAILED, State.CANCELLED}
    prepared = status.resolved is not None and status.resolved.hyperparameters is not None

    def condition(holds: bool) -> ConditionStatus:
        return ("True" if holds else "False", reason)

    if prepared:
        validated: ConditionStatus = ("True", DATA_VALID)
    elif state == State.FAILED:
        validated = ("False", reason)
    else:
        validated = ("Unknown", Reason.VALIDATING)
    return {
        "Validated": validated,
        "Running": condition(state == State.RUNNING),
        "Suspended": condition(state == State.PENDING and reason == Reason.SUSPENDED),
        "Succeeded": condition(succeeded),
        "Failed": condition(state == State.FAILED),
        "Ready": condition(succeeded),
        "Reconciling": condition(state not in names.TERMINAL_STATES),
        "Stalled": condition(failed),
    }
