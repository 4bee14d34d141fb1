"""The events of a FineTune in both APIs.

The id of an event has the number that the operator counts up (`seq`), so that it stays the same
when the status drops the oldest events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry
from finetune_api.wire import JsonObject
from finetune_gateway.wire.ids import Form
from finetune_gateway.wire.metrics import MetricsRow
from finetune_gateway.wire.step_times import step_times
from finetune_gateway.wire.timestamps import unix

LEVELS = {"info": "info", "warning": "warn", "error": "error"}
_OBJECT: dict[Form, str] = {"fine-tune": "fine-tune-event", "job": "fine_tuning.job.event"}


@dataclass(frozen=True)
class Message:
    """An event that the status has."""

    number: int  # grows from event to event
    entry: EventEntry


def number_messages(entries: Sequence[EventEntry]) -> list[Message]:
    """The events of a status with their numbers, which grow.

    Entries of an operator without numbers are counted from 1, as the next operator counts them.
    """
    found: list[Message] = []
    last = 0
    for entry in entries:
        last = max(last + 1, entry.seq or 0)
        found.append(Message(last, entry))
    return found


def message_id(name: str, number: int) -> str:
    """name: of the FineTune."""
    return f"ftevent-{name}-{number}"


def metrics_id(name: str, step: int) -> str:
    return f"ftevent-{name}-step-{step}"


def message_object(finetune: FineTune, message: Message, form: Form) -> JsonObject:
    """An event of the status in one of the two APIs."""
    entry = message.entry
    found: JsonObject = {
        "id": message_id(finetune.metadata.name, message.number),
        "object": _OBJECT[form],
        "created_at": _time(finetune, entry),
        "level": LEVELS.get(entry.level, "info"),
        "message": entry.message,
    }
    if form == "job":
        found |= {"type": "message", "data": {}}
    return found


def status_object(finetune: FineTune, now: datetime, form: Form) -> JsonObject:
    """An event with the message of the status, which is in a stream only and has no number."""
    name, seconds = finetune.metadata.name, int(now.timestamp())
    found: JsonObject = {
        "id": f"ftevent-{name}-status-{seconds}",
        "object": _OBJECT[form],
        "created_at": seconds,
        "level": "info",
        "message": finetune.status.message or "",
    }
    return found | ({"type": "message", "data": {}} if form == "job" else {})


def fine_tune_events(finetune: FineTune) -> list[JsonObject]:
    """The events of the fine-tunes API, oldest first."""
    messages = number_messages(finetune.status.events)
    return [message_object(finetune, message, "fine-tune") for message in messages]


@dataclass(frozen=True)
class JobEvent:
    """An event of the fine-tuning API. Its object is built for the page that shows it."""

    id: str
    build: Callable[[], JsonObject]


def job_events(finetune: FineTune, rows: Sequence[MetricsRow] = ()) -> list[JobEvent]:
    """The messages, and one event for each row of results.csv; newest first.

    The time of a row is an estimate, by which it is between the messages.
    """
    keyed = [*_keyed_messages(finetune), *_keyed_metrics(finetune, rows)]
    keyed.sort(key=lambda pair: pair[0], reverse=True)
    return [event for _, event in keyed]


_Key = tuple[int, int, int]  # time, metrics before messages, number or step


def _keyed_messages(finetune: FineTune) -> Iterator[tuple[_Key, JobEvent]]:
    latest = 0
    for message in number_messages(finetune.status.events):
        # The numbers decide the order of the messages, even if a clock was set back.
        latest = max(latest, _time(finetune, message.entry))
        event = JobEvent(
            message_id(finetune.metadata.name, message.number),
            partial(message_object, finetune, message, "job"),
        )
        yield (latest, 1, message.number), event


def _keyed_metrics(
    finetune: FineTune, rows: Sequence[MetricsRow]
) -> Iterator[tuple[_Key, JobEvent]]:
    time_of = step_times(finetune.status, unix(finetune.metadata.creation_timestamp) or 0)
    resolved = finetune.status.resolved
    steps = resolved.steps if resolved else None
    for row in rows:
        at = time_of(row.step)
        event = JobEvent(
            metrics_id(finetune.metadata.name, row.step),
            partial(_metrics_object, finetune, row, at, steps),
        )
        yield (at, 0, row.step), event


def _metrics_object(
    finetune: FineTune, row: MetricsRow, created_at: int, steps: int | None
) -> JsonObject:
    return {
        "id": metrics_id(finetune.metadata.name, row.step),
        "object": _OBJECT["job"],
        "created_at": created_at,
        "level": "info",
        "message": row.describe(steps),
        "type": "metrics",
        "data": row.data | ({} if steps is None else {"total_steps": steps}),
    }


def _time(finetune: FineTune, entry: EventEntry) -> int:
    at = unix(entry.at)
    return at if at is not None else unix(finetune.metadata.creation_timestamp) or 0
