"""reconcile(key): observe -> decide -> act -> one status write -> Events."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_operator.core.decide import decide
from finetune_operator.core.key import Key
from finetune_operator.core.observed import Observed
from finetune_operator.core.plan import Plan
from finetune_operator.handlers.change_filter import ChangeFilter
from finetune_operator.handlers.event_recorder import EventRecorder
from finetune_operator.handlers.models import reconcile_model
from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube.act import (
    ForeignObjectError,
    UnseenError,
    act,
    write_status,
)
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.observe import observe
from finetune_operator.settings import Settings
from finetune_operator.telemetry import metrics

WORKERS = 8
# So many of them look for what starts before what ends: neither waits for a flood of the other.
STARTERS = 5
SLOW_SECONDS = 120.0  # a reconcile that takes longer hangs: liveness says so

logger = logging.getLogger(__name__)


class Reconciler:
    """Several keys at once, one at a time each."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        queue: WorkQueue[Key],
        sightings: ChangeFilter,
        announcer: EventRecorder,
    ) -> None:
        self.client = client
        self._announcer = announcer
        self._sightings = sightings
        self.settings = settings
        self.queue = queue
        self._since: dict[Key, float] = {}

    @property
    def is_stuck(self) -> bool:
        now = time.monotonic()
        return any(now - since > SLOW_SECONDS for since in self._since.values())

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                first = CREATION if number < STARTERS else COMPLETION
                group.create_task(self._work(first))

    async def _work(self, first: int) -> None:
        while True:
            key = await self.queue.take(first)
            self._since[key] = time.monotonic()
            try:
                wait = await self.reconcile(key)
            except Exception as error:
                seconds = self.queue.failed(key)
                metrics.RECONCILES.labels("error").inc()
                expected = isinstance(error, ApiError | ValidationError)
                logger.warning(
                    "%s: %s; again in %.0f s", key, error, seconds, exc_info=not expected
                )
            else:
                metrics.RECONCILES.labels("done").inc()
                self.queue.done(key, wait)
            finally:
                started = self._since.pop(key)
                metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)

    async def reconcile(self, key: Key) -> float | None:
        """Seconds until the next look; None: a trigger will come, or nothing is left to do."""
        if key.kind == "Model":
            return await reconcile_model(self.client, self.settings, key.namespace, key.name)
        done = await self._carry_out(key)
        if done is None:
            metrics.forget(key)
            return None
        seen, plan = done
        before, after = seen.finetune.status, plan.status
        meta = seen.finetune.metadata
        self._sightings.expect(meta.uid, meta.generation, after)
        if await write_status(self.client, seen.finetune, after):
            if after.state != before.state:
                logger.info("%s is %s: %s", key, after.state, after.message)
            metrics.count_write(seen.finetune, after, seen.progress)
            self._announcer.announce(seen.finetune, after)
        metrics.observe(seen.finetune, after, seen.progress)
        return plan.requeue_after

    async def _carry_out(
        self, key: Key, foreign: tuple[str, ...] = (), *, is_thorough: bool = False
    ) -> tuple[Observed, Plan] | None:
        """Look, decide and act; once more, and thoroughly, when something unexpected was there."""
        catalog = frozenset(model.name for model in self.settings.models)
        kueue = self.settings.kueue_version
        seen = await observe(self.client, key, foreign, kueue, catalog, is_thorough=is_thorough)
        if seen is None:
            return None
        plan = decide(seen, self.settings, datetime.now(UTC))
        try:
            await act(self.client, seen, plan.actions)
        except UnseenError:
            return await self._carry_out(key, is_thorough=True)
        except ForeignObjectError as error:
            if foreign:
                raise
            return await self._carry_out(key, (str(error),), is_thorough=True)
        return seen, plan
