"""The FineTune reconciler: observe -> decide -> act -> one status write -> Events."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_operator.core.decide import decide
from finetune_operator.core.key import Key
from finetune_operator.core.observed import ForeignObject, Observed
from finetune_operator.core.plan import Plan
from finetune_operator.handlers.change_filter import ChangeFilter
from finetune_operator.handlers.event_recorder import EventRecorder
from finetune_operator.handlers.reconcile_model import reconcile_model
from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube.act import (
    ForeignObjectError,
    UnlistedObjectError,
    act,
    write_status,
)
from finetune_operator.kube.client import ApiError
from finetune_operator.kube.observe import Observer
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics

WORKERS = 8
# These take keys that start something first, and the others keys that end something, so that
# neither kind waits for many keys of the other.
STARTERS = 5
SLOW_SECONDS = 120.0  # a reconcile that takes longer fails the liveness probe

logger = logging.getLogger(__name__)


class Reconciler:
    """Reconciles several keys concurrently, and each key one at a time."""

    def __init__(
        self,
        observer: Observer,
        settings: Settings,
        queue: WorkQueue[Key],
        change_filter: ChangeFilter,
        event_recorder: EventRecorder,
    ) -> None:
        self.client = observer.client
        self._observer = observer
        self._event_recorder = event_recorder
        self._change_filter = change_filter
        self.settings = settings
        self.queue = queue
        self._since: dict[Key, float] = {}

    @property
    def is_stuck(self) -> bool:
        now = time.monotonic()
        return any(now - since > SLOW_SECONDS for since in self._since.values())

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(WORKERS):
                first = CREATION if number < STARTERS else COMPLETION
                group.create_task(self._process(first))

    async def _process(self, first: int) -> None:
        while True:
            key = await self.queue.take(first)
            self._since[key] = time.monotonic()
            try:
                wait = await self.reconcile(key)
            except Exception as error:
                seconds = self.queue.failed(key)
                reconcile_metrics.RECONCILES.labels("error").inc()
                expected = isinstance(error, ApiError | ValidationError)
                logger.warning(
                    "%s: %s; retry in %.0f s", key, error, seconds, exc_info=not expected
                )
            else:
                reconcile_metrics.RECONCILES.labels("done").inc()
                self.queue.done(key, wait)
            finally:
                started = self._since.pop(key)
                reconcile_metrics.RECONCILE_SECONDS.observe(time.monotonic() - started)

    async def reconcile(self, key: Key) -> float | None:
        """Return the seconds until the next reconcile; None: wait for a trigger."""
        if key.kind == "Model":
            return await reconcile_model(self.client, self.settings, key)
        done = await self._carry_out(key)
        if done is None:
            reconcile_metrics.forget(key)
            return None
        observed, plan = done
        before, after = observed.finetune.status, plan.status
        meta = observed.finetune.metadata
        self._change_filter.expect(meta.uid, meta.generation, after)
        if await write_status(self.client, observed.finetune, after):
            if after.state != before.state:
                logger.info("%s is %s: %s", key, after.state, after.message)
            reconcile_metrics.count_write(observed.finetune, after, observed.progress)
            self._event_recorder.record(observed.finetune, after)
        reconcile_metrics.observe(observed.finetune, after, observed.progress)
        return plan.requeue_after

    async def _carry_out(
        self, key: Key, foreign: tuple[ForeignObject, ...] = (), *, is_thorough: bool = False
    ) -> tuple[Observed, Plan] | None:
        """Observe, decide, and act; repeat it with all children if an unexpected object exists."""
        observed = await self._observer.observe(key, foreign, is_thorough=is_thorough)
        if observed is None:
            return None
        plan = decide(observed, self.settings, datetime.now(UTC))
        try:
            await act(self.client, observed, plan.actions)
        except UnlistedObjectError:
            return await self._carry_out(key, is_thorough=True)
        except ForeignObjectError as error:
            if foreign:
                raise
            return await self._carry_out(key, (error.found,), is_thorough=True)
        return observed, plan
