"""One FineTune as it changes, for as long as it takes: a watch that heals by itself.

What may go wrong with a watch is normal: the server ends it, restarts, forgets the version (410),
the network goes away, the person may read but not watch. Only what no waiting mends is an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from finetune_api.wire import JsonObject
from finetune_cli.cluster.errors import ApiError, UnreachableError

if TYPE_CHECKING:
    from finetune_cli.cluster.resources import Resource


POLL_SECONDS = 2.0  # between two reads where no watch is allowed
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two attempts to reach the server


@dataclass(frozen=True)
class Current:
    """The object as it is now."""

    object: JsonObject


@dataclass(frozen=True)
class Disconnected:
    """No connection: another attempt follows in `wait` seconds."""

    why: str
    wait: float


@dataclass(frozen=True)
class Deleted:
    """The object is gone, or another one has its name."""


Update = Current | Disconnected | Deleted


def watch_object(
    resource: Resource, name: str, *, pause: Callable[[float], None] = time.sleep
) -> Iterator[Update]:
    """Every state of the object from now on; ends only after Deleted.

    Raises ApiError for what waiting does not mend (no such object at the start, no right to read).
    """
    observer = _Observer(resource, name)
    wait = FIRST_WAIT
    while True:
        try:
            for update in observer.updates():
                wait = FIRST_WAIT
                yield update
                if isinstance(update, Deleted):
                    return
            pause(FIRST_WAIT if observer.may_watch else POLL_SECONDS)
        except UnreachableError as error:
            yield Disconnected(error.why, wait)
            pause(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        except ApiError as error:
            if not error.is_transient:
                raise
            yield Disconnected(f"the API server answers {error.status}", wait)
            pause(wait)
            wait = min(2 * wait, LONGEST_WAIT)


class _Observer:
    """Reads, then watches from what it read; remembers where it was."""

    def __init__(self, resource: Resource, name: str) -> None:
        self._resource = resource
        self._name = name
        self._uid = ""
        self._version = ""
        self.may_watch = True

    def updates(self) -> Iterator[Update]:
        """One read, then watches one after the other for as long as they go well."""
        try:
            found = self._resource.get(self._name)
        except ApiError as error:
            if error.is_missing and self._uid:
                yield Deleted()
                return
            raise
        yield self._seen(found)
        while self.may_watch:
            brought = False
            try:
                for kind, changed in self._resource.watch(self._name, self._version):
                    brought = True
                    if kind == "BOOKMARK":
                        self._version = changed["metadata"]["resourceVersion"]
                    elif kind == "DELETED":
                        yield Deleted()
                        return
                    else:
                        yield self._seen(changed)
            except json.JSONDecodeError:
                return  # cut in the middle of a line: read anew
            except ApiError as error:
                if error.status == HTTPStatus.GONE:
                    return
                if error.status != HTTPStatus.FORBIDDEN:
                    raise
                self.may_watch = False
            if not brought:
                return  # after a breath: something between here and there may end every watch

    def _seen(self, found: JsonObject) -> Update:
        meta = found["metadata"]
        if self._uid and meta["uid"] != self._uid:
            return Deleted()
        self._uid, self._version = meta["uid"], meta["resourceVersion"]
        return Current(found)
