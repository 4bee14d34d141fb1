"""Fills `attempt`, `key`, and `seq` of Events that an earlier operator version wrote without them.

The first version identified an Event by its text. Only this module knows its wording, and the
module is frozen: a later change of a message must not change it.
"""

import re
from collections.abc import Callable

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Attempt, EventEntry, FineTuneStatus
from finetune_api.names import Reason
from finetune_operator.core.events.numbers import with_numbers
from finetune_operator.messages.events import advice

EPOCH = re.compile(r"Completed epoch (\d+)/")
RESTARTED_FROM = re.compile(r"Fine-tune restarted from step (\d+): (.*)", re.DOTALL)
RESTARTED_ATTEMPT = re.compile(r"Fine-tune restarted, attempt (\d+): ")
POSITION = re.compile(r"Fine-tune enqueued\. Queue number: ")
QUEUE = re.compile(r"Fine-tune enqueued in queue (\S+)$")
FAILED = "Fine-tune failed. "

Fields = dict[str, int | str | None]


def with_event_fields(finetune: FineTune) -> FineTune:
    """The FineTune with the fields in each Event of its status that should have them."""
    status = finetune.status
    events = with_numbers(_filled(entry, status) for entry in status.events)
    _mark_current_suspension(events, status)
    if events == status.events:
        return finetune
    return finetune.replace(status=status.replace(events=events))


def _filled(entry: EventEntry, status: FineTuneStatus) -> EventEntry:
    if entry.attempt is not None or entry.key is not None:
        return entry
    if entry.message.startswith(FAILED):
        return entry.replace(key="failed")
    find = FIELDS.get(entry.reason)
    return entry.replace(**find(entry, status)) if find else entry


def _of_advice(entry: EventEntry, _: FineTuneStatus) -> Fields:
    return {"key": advice(entry.message).key}


def _of_epoch(entry: EventEntry, _: FineTuneStatus) -> Fields:
    found = EPOCH.match(entry.message)
    return {"key": found[1]} if found else {}


def _of_queue(entry: EventEntry, status: FineTuneStatus) -> Fields:
    """The position was recorded once after the start of an attempt."""
    queue = QUEUE.match(entry.message)
    if queue:
        return {"key": queue[1]}
    if not POSITION.match(entry.message):
        return {}
    begun = [item.number for item in status.attempts if item.started_at <= entry.at]
    return {"attempt": max(begun, default=1)}


def _of_restart(entry: EventEntry, status: FineTuneStatus) -> Fields:
    """Equal texts were recorded once: the newest attempt with the step and the cause counts."""
    attempt = RESTARTED_ATTEMPT.match(entry.message)
    if attempt:
        return {"attempt": int(attempt[1])}
    found = RESTARTED_FROM.match(entry.message)
    if not found:
        return {}
    former = {item.number + 1: item for item in status.attempts}
    matching = [
        item.number
        for item in status.attempts
        if item.resumed_from_step == int(found[1])
        and _was_caused_by(former.get(item.number), found[0], found[2])
    ]
    return {"attempt": max(matching)} if matching else {}


def _was_caused_by(former: Attempt | None, message: str, cause: str) -> bool:
    known = (former.message if former else None) or "unknown"
    return known == cause or (len(message) == 1024 and known.startswith(cause))


def _of_suspension(entry: EventEntry, status: FineTuneStatus) -> Fields:
    """It was recorded by the status write that ended the attempt."""
    ended = (item.number for item in status.attempts if item.ended_at == entry.at)
    return {"attempt": next(ended, None)}


def _of_resumption(entry: EventEntry, status: FineTuneStatus) -> Fields:
    """It was recorded by the status write that started the attempt after the suspended one."""
    ended = [item.number for item in status.attempts if (item.ended_at or "z") <= entry.at]
    return {"attempt": max(ended) + 1} if ended else {}


def _mark_current_suspension(events: list[EventEntry], status: FineTuneStatus) -> None:
    """Assign the newest Suspended to the present suspension, whenever it was recorded."""
    if status.reason != Reason.SUSPENDED or not status.attempts:
        return
    current = status.attempts[-1].number
    found = [index for index, entry in enumerate(events) if entry.reason == "Suspended"]
    if found and all(events[index].attempt != current for index in found):
        events[found[-1]] = events[found[-1]].replace(attempt=current)


FIELDS: dict[str, Callable[[EventEntry, FineTuneStatus], Fields]] = {
    "Advice": _of_advice,
    "EpochCompleted": _of_epoch,
    "Enqueued": _of_queue,
    "Restarted": _of_restart,
    "Suspended": _of_suspension,
    "Resumed": _of_resumption,
}
