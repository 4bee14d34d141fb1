"""Numbers the Events of a FineTune: each one is larger by one than that of the Event before it.

The number of an Event never changes and is never used again, although the status keeps only the
newest Events. Clients use it as a cursor. It is no part of the identity of an Event.

An operator version without numbers writes the Events without them, also those that had one. The
next version then counts from the oldest Event that is left.
"""

from collections.abc import Iterable, Sequence

from finetune_api.finetune_status import EventEntry

EVENTS_KEPT = 64


def with_numbers(events: Iterable[EventEntry]) -> list[EventEntry]:
    """The same Events. One without a number gets the one that follows the Event before it."""
    found: list[EventEntry] = []
    for entry in events:
        found.append(entry if entry.seq is not None else entry.replace(seq=_next_number(found)))
    return found


def with_event(events: Sequence[EventEntry], entry: EventEntry) -> list[EventEntry]:
    """The newest Events with this one, which gets the next number."""
    numbered = with_numbers(events)
    return [*numbered, entry.replace(seq=_next_number(numbered))][-EVENTS_KEPT:]


def _next_number(events: Iterable[EventEntry]) -> int:
    """One more than the largest number of Events that all have one."""
    return max((entry.seq or 0 for entry in events), default=0) + 1
