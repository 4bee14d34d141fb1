"""A watch on one object that reconnects until the object is deleted.

Some interruptions are normal: the server ends or restarts the watch, forgets the resource version
(410), the network fails, or the user may read but not watch. Only an error that retries cannot
resolve is raised.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from finetune_cli.cluster.errors import ApiError, UnreachableError

if TYPE_CHECKING:
    from finetune_api.wire import JsonObject
    from finetune_cli.cluster.resources import Resource

POLL_SECONDS = 2.0  # between two reads when watching is not permitted
FIRST_DELAY, LONGEST_DELAY = 0.5, 15.0  # seconds between two connection attempts


@dataclass(frozen=True)
class Current:
    """The current object."""

    object: JsonObject


@dataclass(frozen=True)
class Disconnected:
    """The connection is lost. The next attempt follows after `delay` seconds."""

    reason: str
    delay: float


@dataclass(frozen=True)
class Deleted:
    """The object was deleted, or another object has its name."""


Update = Current | Disconnected | Deleted


def watch_object(
    resource: Resource,
    name: str,
    *,
    may_watch: bool = True,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[Update]:
    """Every state of the object from now on; ends only after Deleted.

    may_watch: if false, the object is read every POLL_SECONDS, for a caller that has a deadline.
    Raises ApiError for an error that retries cannot resolve, such as a missing object at the start
    or missing permission to read it.
    """
    watcher = _Watcher(resource, name, may_watch=may_watch)
    delay = FIRST_DELAY
    while True:
        try:
            for update in watcher.updates():
                delay = FIRST_DELAY
                yield update
                if isinstance(update, Deleted):
                    return
            pause(FIRST_DELAY if watcher.may_watch else POLL_SECONDS)
        except UnreachableError as error:
            yield Disconnected(error.reason, delay)
            pause(delay)
            delay = min(2 * delay, LONGEST_DELAY)
        except ApiError as error:
            if not error.is_transient:
                raise
            yield Disconnected(f"the API server answers {error.status}", delay)
            pause(delay)
            delay = min(2 * delay, LONGEST_DELAY)


class _Watcher:
    """Reads the object, then watches from the resource version it read."""

    def __init__(self, resource: Resource, name: str, *, may_watch: bool = True) -> None:
        self._resource = resource
        self._name = name
        self._uid = ""
        self._version = ""
        self.may_watch = may_watch

    def updates(self) -> Iterator[Update]:
        """One read, then one watch after the other until one of them fails."""
        try:
            item = self._resource.get(self._name)
        except ApiError as error:
            if error.is_missing and self._uid:
                yield Deleted()
                return
            raise
        yield self._current(item)
        while self.may_watch:
            has_events = False
            try:
                for kind, changed in self._resource.watch(self._name, self._version):
                    has_events = True
                    if kind == "BOOKMARK":
                        self._version = changed["metadata"]["resourceVersion"]
                    elif kind == "DELETED":
                        yield Deleted()
                        return
                    else:
                        yield self._current(changed)
            except json.JSONDecodeError:
                return  # the connection ended in the middle of a line: read the object again
            except ApiError as error:
                if error.status == HTTPStatus.GONE:
                    return
                if error.status != HTTPStatus.FORBIDDEN:
                    raise
                self.may_watch = False
            if not has_events:
                return  # pause first: a proxy may be ending every watch

    def _current(self, item: JsonObject) -> Update:
        meta = item["metadata"]
        if self._uid and meta["uid"] != self._uid:
            return Deleted()
        self._uid, self._version = meta["uid"], meta["resourceVersion"]
        return Current(item)
