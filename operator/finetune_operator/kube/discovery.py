"""Finds the version in which the cluster serves an API, as the API server publishes it.

Every authenticated user may read these documents (ClusterRole `system:discovery`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from finetune_operator.kube.client import ApiError, Client

FOUND_SECONDS = 600.0  # until a known version is looked up again: a newer one may be served
ABSENT_SECONDS = 60.0  # until an API that was absent is looked up again
DOUBT_SECONDS = 10.0  # between two searches after requests that the API server answered with 404
FORBIDDEN, NOT_FOUND = 403, 404

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Api:
    """A resource, or a subresource as in `pods/log`. known: tested versions, the best one first."""

    group: str
    resource: str
    known: tuple[str, ...]


class ServedVersion:
    """The version of an API, which is looked up when it is needed and remembered for a while."""

    def __init__(
        self, api: Api, preferred: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """preferred: used before all others if the cluster serves it, or discovery fails."""
        self.api = api
        self._preferred = preferred
        self._clock = clock
        self._version: str | None = None
        self._looked_up_at: float | None = None
        self._expires_at = 0.0
        self._lock = asyncio.Lock()

    async def find(self, client: Client) -> str | None:
        """Return the version; None: the cluster does not serve the API."""
        async with self._lock:
            if self._looked_up_at is None or self._clock() >= self._expires_at:
                await self._look_up(client)
            return self._version

    async def find_again(self, client: Client, refused: str) -> str | None:
        """Return the version after a request for the `refused` one has been answered with 404."""
        async with self._lock:
            last = self._looked_up_at
            if self._version == refused and (last is None or self._clock() >= last + DOUBT_SECONDS):
                await self._look_up(client)
            return self._version

    async def _look_up(self, client: Client) -> None:
        former, is_first = self._version, self._looked_up_at is None
        try:
            self._version = await self._search(client)
        except ApiError as error:
            # A version that was known stays. The next search comes soon.
            self._version = former or self._preferred or None
            logger.warning("the versions of %s cannot be read: %s", self.api.group, error)
            lasts = ABSENT_SECONDS
        else:
            lasts = FOUND_SECONDS if self._version else ABSENT_SECONDS
        self._looked_up_at = self._clock()
        self._expires_at = self._looked_up_at + lasts
        if self._version != former or is_first:
            self._report()

    def _report(self) -> None:
        if self._version is None:
            logger.info("the cluster does not serve %s", self.api.group)
            return
        logger.info("%s %s is used", self.api.group, self._version)
        if self._preferred not in ("", self._version):
            logger.warning(
                "the cluster does not serve %s %s of the settings", self.api.group, self._preferred
            )

    async def _search(self, client: Client) -> str | None:
        """The best version that has the resource. Raise ApiError if nothing can be known."""
        try:
            group = await client.get(f"/apis/{self.api.group}")
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            return None
        unknown: ApiError | None = None
        for version in self._order(_names(group, "versions", "version")):
            try:
                listed = await client.get(f"/apis/{self.api.group}/{version}")
            except ApiError as error:
                # The server of an aggregated version may be down while another one responds.
                unknown = error if error.status != NOT_FOUND else unknown
                continue
            if self.api.resource in _names(listed, "resources", "name"):
                return version
        if unknown is not None:
            raise unknown
        return None

    def _order(self, served: Iterable[str]) -> list[str]:
        """The order of preference. Versions that we do not know keep the API server's order."""
        first = [self._preferred, *self.api.known]
        return sorted(served, key=lambda name: first.index(name) if name in first else len(first))


def _names(answer: object, collection: str, field: str) -> list[str]:
    """A field of all items, of an answer that an aggregated server may have written."""
    items = answer.get(collection) if isinstance(answer, dict) else None
    found = [item.get(field) for item in items or () if isinstance(item, dict)]
    return [name for name in found if isinstance(name, str)]
