"""Requests to the API server, from its audit log: the source of all figures except CPU and memory.

One clock writes the log, before each response is sent, and reading it does not disturb the
measurement.
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
    """An answered request; `at` in seconds since 1970, `agent` is the name of the program."""

    at: float
    verb: str
    resource: str  # with its subresource: "pods/status"
    name: str
    user: str
    agent: str
    is_page: bool = False  # of a list, which the operator reads for all FineTunes together

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES


def requests(log: Path, namespace: str, start: int = 0) -> Iterator[Request]:
    """Yield the requests in a namespace, in the order of the responses, from byte `start` on."""
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
                is_page="limit=250" in event.get("requestURI", ""),
            )


def writes(found: Iterable[Request], user: str) -> Counter[str]:
    """Count the writes of a user by verb and resource."""
    return Counter(
        f"{one.verb} {one.resource}" for one in found if one.user == user and one.is_write
    )


def reads(found: Iterable[Request], user: str) -> Counter[str]:
    """Count the reads of a user by verb and resource, without watches.

    Lists in pages, when a watch opens and at a sweep, are not for a single FineTune.
    """
    return Counter(
        f"{one.verb} {one.resource}"
        for one in found
        if one.user == user and one.verb in {"get", "list"} and not one.is_page
    )


def of_child(name: str) -> tuple[str, str]:
    """Split the name of a Job or pod, such as `ft-NAME-UID-prepare`, into NAME and component."""
    name, _, what = name.removeprefix("ft-").partition("-prepare")
    if what or _:
        return name.rpartition("-")[0], "prepare"
    stem, _, rest = name.rpartition("-a1")
    return stem.rpartition("-")[0], f"a1{rest}"
