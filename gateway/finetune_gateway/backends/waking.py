"""The models that the operator serves stay awake while they are in use.

The operator starts the pods of a model whose Lease was renewed, and stops them a while after the
last renewal. One background task renews the Leases of all models.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from finetune_gateway.backends.renewals import Renewals
from finetune_gateway.kube_errors import KubeError

LOG_SECONDS = 60.0  # between two messages about the same cause

Renew = Callable[[str], Awaitable[None]]  # by the name of a Lease; raises KubeError

logger = logging.getLogger(__name__)


async def renew_nothing(lease: str) -> None:
    """For a gateway without models that the operator serves."""


class Waking:
    """Renews the Leases of the models in use. Close it: its task ends then."""

    def __init__(self, renew: Renew = renew_nothing, renewals: Renewals | None = None) -> None:
        self._renew = renew
        self._renewals = renewals or Renewals()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._logged: dict[str, float] = {}  # by cause

    @contextmanager
    def in_use(self, lease: str) -> Iterator[None]:
        """A request for the model of this Lease is in flight until the end of the block.

        From the first call of `want` on, the Lease is renewed as long as it is.
        """
        if self._renewals.begin(lease, _now()):
            self._changed.set()
        try:
            yield
        finally:
            self._renewals.end(lease)

    def want(self, lease: str, *, is_ready: bool = True) -> None:
        """Renew the Lease soon, unless it was renewed lately. Only within `in_use`.

        is_ready: False if the server of the model did not answer.
        """
        if self._renewals.want(lease, _now(), is_ready=is_ready):
            self._changed.set()
            if self._task is None and not self._is_closed:
                self._task = asyncio.create_task(self._run())

    def obstacle(self, lease: str) -> str:
        """Why the Lease is not renewed, for a message; empty: there is no known obstacle."""
        match self._renewals.refusal(lease):
            case 403:
                return f"the gateway may not patch the Lease {lease}, which wakes the model"
            case 404:
                return f"the operator has not created the Lease {lease}, which wakes the model"
        return ""

    async def close(self) -> None:
        """End the task. Nothing is renewed any more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            due = self._renewals.take_due(_now())
            await asyncio.gather(*(self._attempt(lease) for lease in due))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._renewals.seconds_to_next(_now())):
                    await self._changed.wait()

    async def _attempt(self, lease: str) -> None:
        """Renew one Lease. A failure must not end the task, which is there for all models."""
        try:
            await self._renew(lease)
        except KubeError as error:
            self._renewals.record(lease, error.status)
            self._log(lease, error)
        except Exception:
            logger.exception("the Lease %s was not renewed", lease)
        else:
            self._renewals.record(lease, None)

    def _log(self, lease: str, error: KubeError) -> None:
        cause, now = f"{error.status} {error.reason}", _now()
        if now - self._logged.get(cause, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged[cause] = now
            logger.warning("the Lease %s was not renewed: %s", lease, error)


def _now() -> float:
    return asyncio.get_running_loop().time()
