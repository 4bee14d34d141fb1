"""Who asked the API server for what, and when: all figures but CPU and memory are made from this.

The audit log is written by one clock, before each answer goes out, and nobody has to be asked while
it is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.support.audit import WRITES, events, resource_of


@dataclass(frozen=True)
class Request:
    """One that was answered; `at` in seconds since 1970, `agent` the program's name."""

    at: float
    verb: str
    resource: str  # with its subresource: "pods/status"
    name: str
    user: str
    agent: str

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES


def requests(log: Path, namespace: str, start: int = 0) -> Iterator[Request]:
    """Of a namespace, in the order of the answers; `start`: a byte offset."""
    for event in events(log, start):
        what: dict[str, Any] = event.get("objectRef", {})
        if event.get("stage") == "ResponseComplete" and what.get("namespace") == namespace:
            yield Request(
                at=datetime.fromisoformat(event["stageTimestamp"]).timestamp(),
                verb=event["verb"],
                resource=resource_of(what),
                name=what.get("name", ""),
                user=event["user"].get("username", ""),
                agent=event.get("userAgent", "").partition("/")[0],
            )


def writes(found: Iterable[Request], user: str) -> Counter[str]:
    """ "verb resource" -> count."""
    return Counter(
        f"{one.verb} {one.resource}" for one in found if one.user == user and one.is_write
    )


def reads(found: Iterable[Request], user: str) -> Counter[str]:
    """ "verb resource" -> count, watches left out."""
    return Counter(
        f"{one.verb} {one.resource}"
        for one in found
        if one.user == user and not one.is_write and one.verb != "watch"
    )


def of_child(name: str) -> tuple[str, str]:
    """`ft-NAME-UID-prepare` -> NAME and what it is; of a pod too, whose name has more behind it."""
    name, _, what = name.removeprefix("ft-").partition("-prepare")
    if what or _:
        return name.rpartition("-")[0], "prepare"
    stem, _, rest = name.rpartition("-a1")
    return stem.rpartition("-")[0], f"a1{rest}"
