"""The faults of a life: at a write of the operator, at an event of its watches, or all the time."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.integration.sweep.life import Life
from tests.support.proxy import (
    Answer,
    Cut,
    Delay,
    Drop,
    Event,
    Fault,
    Hold,
    Late,
    Old,
    Rule,
    Seen,
)

# before: the operator is killed, and the API server does not get the request. after: it is killed,
# and the request is committed. late: the client gives up, and the request is committed afterwards,
# one that creates or deletes at the end of the life. soon: it is committed before the next try.
AtWrite = Literal["before", "after", "late", "soon"]
# term: SIGTERM while the API server handles the request. stale: killed after the commit, and the
# next process gets lists from the beginning of the life. rival: the process freezes before the
# commit, another one lives on, and the first wakes up at the end of the life.
AtWriteOfFew = Literal["term", "stale", "rival"]
AtEvent = Literal["lost", "delayed", "swapped"]  # an event of a watch, the last by the next one
# busy: four of five requests get a 429. slow: each takes a second. away: the operator is killed
# before everything that a user, the pods, or a queue do, and started after it.
AllTheTime = Literal["busy", "slow", "away"]

TIMEOUT_SECONDS = 2.0  # of the operator's requests
SWEEP_SECONDS = 4.0  # of the operator, if it loses an event
SLOW_SECONDS = 1.0
SOON_SECONDS = 0.3
BUSY_SECONDS = 15.0
STALE_SECONDS = 1.5
DELAY_SECONDS = 3.0


@dataclass(frozen=True)
class Cell:
    """A fault in a lifecycle. number: of the write or event, from 1; 0 for no fault."""

    lifecycle: str
    number: int = 0
    moment: AtWrite | AtWriteOfFew | AtEvent | AllTheTime = "before"
    timeout_seconds: float = TIMEOUT_SECONDS
    method: str = ""  # if set: the first write of this method instead of the write `number`

    def __str__(self) -> str:
        if not self.number:
            return self.lifecycle
        return f"{self.lifecycle}, {self.method or self.number}, {self.moment}"


def inject(cell: Cell, life: Life) -> None:
    """Let the proxy of a life inject the fault of a cell."""
    proxy = life.proxy
    if not cell.number:
        proxy.event_rule = _count(life)
    elif cell.moment in {"lost", "delayed", "swapped"}:
        proxy.event_rule = _at_event(cell, life)
    elif cell.moment == "slow":
        proxy.rule = lambda _: Delay(SLOW_SECONDS)
    elif cell.moment == "away":
        life.is_away = True
    elif cell.moment == "busy":
        proxy.rule = _busy()
    else:
        proxy.rule = _at_write(cell, life)


def _at_write(cell: Cell, life: Life) -> Rule:
    faults: dict[str, Callable[[Seen], Fault | None]] = {
        "before": lambda _: _kill(life, Answer(503)),
        "after": lambda _: _kill(life, Cut()),
        "late": lambda seen: _late(life, seen),
        "soon": lambda _: _soon(),
        "term": lambda _: life.operator.send(signal.SIGTERM),
        "stale": lambda _: _make_stale(life),
        "rival": lambda _: _freeze(life),
    }

    def rule(seen: Seen) -> Fault | None:
        if life.hit is not None or not seen.number:
            return None
        is_it = seen.method == cell.method if cell.method else seen.number == cell.number
        if not is_it:
            return None
        life.hit = seen
        return faults[cell.moment](seen)

    return rule


def _kill(life: Life, fault: Fault) -> Fault:
    life.operator.send(signal.SIGKILL)
    return fault


def _late(life: Life, seen: Seen) -> Late:
    return Late(life.released) if is_creation_or_deletion(seen.method, seen.resource) else _soon()


def _soon() -> Late:
    at_once = threading.Event()
    at_once.set()
    return Late(at_once, SOON_SECONDS)


def is_creation_or_deletion(method: str, resource: str) -> bool:
    """Whether the fault "late" and the fault "soon" differ for a write."""
    return method != "PATCH" and resource != "events"


def _make_stale(life: Life) -> Fault:
    ends: list[float] = []

    def old_lists(seen: Seen) -> Old | None:
        ends.append(ends[0] if ends else time.monotonic() + STALE_SECONDS)
        return Old() if seen.is_list and time.monotonic() < ends[0] else None

    life.rule_after_crash = old_lists
    return _kill(life, Cut())


def _freeze(life: Life) -> Hold:
    life.freeze()
    return Hold(life.released)


def _busy() -> Rule:
    """Refuse four of five requests, of any kind, in the first seconds."""
    ends = time.monotonic() + BUSY_SECONDS
    count = 0

    def rule(_: Seen) -> Answer | None:
        nonlocal count
        count += 1
        is_refused = count % 5 and time.monotonic() < ends
        return Answer(429, retry_after=1) if is_refused else None

    return rule


def _count(life: Life) -> Callable[[Event], None]:
    def rule(event: Event) -> None:
        life.events += event.type != "BOOKMARK"

    return rule


def _at_event(cell: Cell, life: Life) -> Callable[[Event], Drop | Delay | None]:
    def rule(event: Event) -> Drop | Delay | None:
        if event.type == "BOOKMARK":
            return None
        life.events += 1
        if life.events != cell.number:
            return None
        life.hit_event = f"{event.type} {event.resource}"
        return {"lost": Drop(), "delayed": Delay(DELAY_SECONDS), "swapped": Delay(0.3)}[cell.moment]

    return rule
