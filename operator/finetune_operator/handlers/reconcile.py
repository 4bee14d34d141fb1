"""The FineTune reconciler: observe -> decide -> act -> one status write -> Events."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from pydantic import ValidationError

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import FineTuneStatus
from finetune_operator.core.decide import decide
from finetune_operator.core.events.legacy import with_event_fields
from finetune_operator.core.key import SERVING, Key
from finetune_operator.core.observed import ForeignObject, Observed
from finetune_operator.core.plan import Plan
from finetune_operator.core.refusals import Refusal
from finetune_operator.core.refused_plan import refused_plan, unread_plan
from finetune_operator.handlers.event_recorder import EventRecorder
from finetune_operator.handlers.reconcile_model import ModelReconciler
from finetune_operator.handlers.reconcile_serving import ServingReconciler
from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue
from finetune_operator.kube import paths
from finetune_operator.kube.act import (
    CONFLICT,
    ForeignObjectError,
    OutdatedError,
    RefusedError,
    act,
    to_refusal,
    withdraw,
    write_status,
)
from finetune_operator.kube.client import ApiError
from finetune_operator.kube.observe import Observer
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics

WORKERS = 12
OBSERVATIONS = 4  # of one reconcile: from the store, and live ones while objects change
# These take keys that start something first, and the others keys that end something, so that
# neither kind waits for many keys of the other.
STARTERS = 9
SLOW_SECONDS = 120.0  # a reconcile that takes longer fails the liveness probe
HICCUPS = 2  # errors in a row that may be over at the next try; the third one is explained

logger = logging.getLogger(__name__)


class StillRefusedError(Exception):
    """The API server refuses a request, and the status says so. at_most: seconds to the retry."""

    def __init__(self, message: str, at_most: float | None) -> None:
        super().__init__(message)
        self.at_most = at_most


class Reconciler:
    """Reconciles several keys concurrently, and each key one at a time."""

    def __init__(
        self,
        observer: Observer,
        settings: Settings,
        queue: WorkQueue[Key],
        event_recorder: EventRecorder,
    ) -> None:
        self.client = observer.client
        self._observer = observer
        self._event_recorder = event_recorder
        self._store = observer.store
        self.settings = settings
        self._models = ModelReconciler(observer.client, settings, observer.kueue, observer.rare)
        self._serving = ServingReconciler(observer.client, settings)
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
            except StillRefusedError as error:
                seconds = self.queue.refused(key, error.at_most)
                reconcile_metrics.RECONCILES.labels("refused").inc()
                logger.warning("%s: %s; retry in %.0f s", key, error, seconds)
            except Exception as error:
                seconds = self.queue.failed(key)
                reconcile_metrics.RECONCILES.labels("error").inc()
                expected = isinstance(error, ApiError | RefusedError | ValidationError)
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
            return await self._models.reconcile(key)
        if key.kind == SERVING:
            return await self._serving.reconcile(key)
        if self._store.is_settled(key):
            return None
        try:
            done = await self._carry_out(key)
        except ApiError as error:
            done = await self._explain_unread(key, error)
        if done is None:
            reconcile_metrics.forget(key)
            return None
        observed, plan = done
        before, after = observed.finetune.status, plan.status
        if await self._write(observed.finetune, after):
            if after.state != before.state:
                logger.info("%s is %s: %s", key, after.state, after.message)
            reconcile_metrics.count_write(observed.finetune, after, observed.progress)
            self._event_recorder.record(observed.finetune, after)
            if after.state in names.TERMINAL_STATES:
                for model in self._models.find_waiting(key):
                    self.queue.add(model, COMPLETION)
        reconcile_metrics.observe(observed.finetune, after, observed.progress)
        if plan.is_refused:
            raise StillRefusedError(after.message or "", plan.requeue_after)
        return plan.requeue_after

    async def _explain_unread(self, key: Key, error: ApiError) -> tuple[Observed, Plan]:
        """The plan if the FineTune can be read, but not its children."""
        refusal = to_refusal(error.verb, error.resource, "", error)
        if self._is_hiccup(key, refusal) or error.resource in {"", "finetunes"}:
            raise error
        raw = await self.client.get(f"{paths.finetunes(key.namespace)}/{key.name}")
        observed = Observed(with_event_fields(FineTune.parse(raw)))
        meta, status = observed.finetune.metadata, observed.finetune.status
        if status.state in names.TERMINAL_STATES or meta.deletion_timestamp:
            raise error
        return observed, unread_plan(observed, refusal, datetime.now(UTC))

    async def _carry_out(self, key: Key) -> tuple[Observed, Plan] | None:
        """Observe, decide, and act. Return None if the FineTune is gone.

        It is repeated with a live observation if the plan cannot be undone, or if the objects
        differ from what was observed.
        """
        foreign: tuple[ForeignObject, ...] = ()
        observed = await self._observer.observe(key)
        for _ in range(OBSERVATIONS):
            if observed is None:
                return None
            now = datetime.now(UTC)
            plan = decide(observed, self.settings, now)
            if observed.is_live or not plan.is_irreversible(observed.finetune.status):
                try:
                    return observed, await self._act(key, observed, plan, now)
                except OutdatedError as error:
                    logger.info("%s: %s has changed; it is observed again", key, error)
                except ForeignObjectError as error:
                    if foreign:
                        raise
                    foreign = (error.found,)
            observed = await self._observer.observe_live(key, foreign)
        raise ApiError(CONFLICT, f"the objects of {key} change faster than they are observed")

    async def _act(self, key: Key, observed: Observed, plan: Plan, now: datetime) -> Plan:
        """Carry out the plan, and return it, or the one that explains why it is refused."""
        try:
            await act(self.client, self._store, observed, plan.actions)
        except RefusedError as error:
            has_ended = observed.finetune.status.state in names.TERMINAL_STATES
            if has_ended or self._is_hiccup(key, error.refusal):
                raise
            if error.unserved is not None:
                await withdraw(self.client, self._store, observed, plan.actions, error.unserved)
            plan = refused_plan(observed, plan, error.refusal, now)
            await self._free_places(observed, plan)
        return plan

    def _is_hiccup(self, key: Key, refusal: Refusal) -> bool:
        """Whether it may be over at the next try, so that it is not worth a sentence yet."""
        return refusal.is_transient and self.queue.failures(key) < HICCUPS

    async def _free_places(self, observed: Observed, plan: Plan) -> None:
        try:
            await act(self.client, self._store, observed, plan.actions)
        except RefusedError as error:
            logger.warning("a Job that a quota counts remains: %s", error)

    async def _write(self, finetune: FineTune, status: FineTuneStatus) -> bool:
        """Write the status. An answer that refuses it can be reported only here.

        After a refusal, the next observation is live: the store may be older than the object.
        """
        meta = finetune.metadata
        self._store.expect(meta.uid, meta.generation, status)
        try:
            written = await write_status(self.client, finetune, status)
        except ApiError as error:
            self._store.doubt(Key(meta.namespace, meta.name))
            reconcile_metrics.REFUSED_STATUSES.labels(str(error.status)).inc()
            refusal = to_refusal("write", "status of FineTune", meta.name, error)
            if not refusal.is_transient and not error.is_outdated:
                self._event_recorder.report_refused_status(finetune, error.message)
            where = f"{meta.namespace}/{meta.name}"
            message = f"the status of FineTune {where} cannot be written: {error.message}"
            raise ApiError(error.status, message, reason=error.reason) from error
        if written is not None:
            self._store.wrote(written, is_first=finetune.status.state is None)
        return written is not None
