"""One object and its changes, over any number of lists and watches.

A watch that ends, expires, or loses its connection is opened again where it ended. The API server
authenticates the caller each time, so a watch is short: a caller who may no longer read the object
is noticed within `WATCH_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from finetune_api.wire import JsonObject
from finetune_gateway.kube.answers import error_of
from finetune_gateway.kube_errors import KubeError

WATCH_SECONDS = (60, 90)
BACKOFF_SECONDS, LONGEST_BACKOFF = 0.2, 5.0
LASTING_SECONDS = 5.0  # a watch of this length is no sign of a fault
GONE = 410
_CHANGES = {"ADDED", "MODIFIED"}

logger = logging.getLogger(__name__)


class Source(Protocol):
    """The requests about one object, as one caller. Both raise KubeError."""

    async def list(self) -> JsonObject:
        """The list with the object, or with none."""
        ...

    def watch(self, version: str, seconds: int) -> AsyncGenerator[JsonObject]:
        """The events after a version, for this long."""
        ...


async def follow(source: Source) -> AsyncGenerator[JsonObject | None]:
    """The object now, and after each change; None at the end, once it has been deleted.

    An object that was created again under the same name is another one. Raises KubeError: with
    status 404 if there is no object, and for a refusal at any time.
    """
    known, backoff = _Known(), Backoff()
    while not known.is_deleted:
        started = time.monotonic()
        try:
            async with aclosing(_observe(source, known)) as changes:
                async for change in changes:
                    backoff.reset()
                    yield change
        except KubeError as error:
            if error.status == GONE:
                known.version = ""  # the API server has forgotten what happened after it
            elif not _is_passing(error):
                raise
            logger.info("a watch ended: %s", error)
            await backoff.wait(error.retry_after or 0)
        else:
            if time.monotonic() - started >= LASTING_SECONDS:
                backoff.reset()
            elif not known.is_deleted:
                await backoff.wait()


async def _observe(source: Source, known: _Known) -> AsyncGenerator[JsonObject | None]:
    """The changes until a watch ends, before which a list shows where it begins."""
    if not known.version:
        for change in known.take_list(await source.list()):
            yield change
    if known.is_deleted:
        return
    seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret depends on it
    async with aclosing(source.watch(known.version, seconds)) as events:
        async for event in events:
            for change in known.take_event(event):
                yield change
            if known.is_deleted:
                return


class _Known:
    """What the API server has reported about the object."""

    def __init__(self) -> None:
        self.version = ""  # from which a watch continues; empty: it starts with a list
        self.is_deleted = False
        self._uid = ""
        self._last = ""  # the version of the object that was yielded

    def take_list(self, found: JsonObject) -> Iterator[JsonObject | None]:
        """The change that a list shows, if any. Raises KubeError."""
        item, version = _parse_list(found)
        if item is None and not self._uid:
            raise KubeError(404, "There is no object of this name.", reason="NotFound")
        self.version = version
        self._uid = self._uid or (_meta(item, "uid") if item else "")
        return self._take(item, _meta(item, "resourceVersion") if item else "")

    def take_event(self, event: JsonObject) -> Iterator[JsonObject | None]:
        """The change that an event shows, if any. Raises KubeError."""
        kind, found = _parse_event(event)
        self.version = _meta(found, "resourceVersion") or self.version
        if kind == "DELETED":
            return self._take(None, self.version)
        return self._take(found, self.version) if kind in _CHANGES else iter(())

    def _take(self, found: JsonObject | None, version: str) -> Iterator[JsonObject | None]:
        if found is None or _meta(found, "uid") != self._uid:
            self.is_deleted = True
            return iter([None])
        is_new, self._last = version != self._last, version
        return iter([found] if is_new else [])


class Backoff:
    """Waits that double, with jitter, so that many followers do not return at the same moment."""

    def __init__(self) -> None:
        self._seconds = BACKOFF_SECONDS

    def reset(self) -> None:
        self._seconds = BACKOFF_SECONDS

    async def wait(self, at_least: float = 0) -> None:
        """Wait for the current time, or for the time that the API server requests."""
        jitter = random.uniform(0.5, 1)  # noqa: S311 - no secret depends on it
        await asyncio.sleep(max(self._seconds * jitter, at_least))
        self._seconds = min(2 * self._seconds, LONGEST_BACKOFF)


def _is_passing(error: KubeError) -> bool:
    """Whether a later request can succeed: no answer, a busy API server, or an error of its own."""
    return error.status in (0, 408, 429) or error.status >= 500


def _parse_list(found: JsonObject) -> tuple[JsonObject | None, str]:
    """The only object of a list, and the version from which a watch continues."""
    version, items = _meta(found, "resourceVersion"), found.get("items")
    if not version or not isinstance(items, list):
        raise KubeError(0, "An answer of the API server is not a list.")
    if not items:
        return None, version
    if not isinstance(items[0], dict) or not _meta(items[0], "uid"):
        raise KubeError(0, "A list of the API server has something that is not an object.")
    return items[0], version


def _parse_event(event: JsonObject) -> tuple[str, JsonObject]:
    """The type and the object of an event. Raises KubeError for an event of type ERROR."""
    kind, found = event.get("type"), event.get("object")
    if kind == "ERROR":
        code = found.get("code") if isinstance(found, dict) else None
        raise error_of(found, code if isinstance(code, int) else 0)
    if not isinstance(kind, str) or not isinstance(found, dict):
        raise KubeError(0, "An event of the API server has no type or no object.")
    return kind, found


def _meta(found: JsonObject, name: str) -> str:
    """A text in the metadata; empty if there is none."""
    metadata: Any = found.get("metadata")
    value = metadata.get(name) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""
