"""The operator of this machine: the decisions of `finetune_operator`, carried out here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.model import Model
from finetune_api.outcome import ProgressReport
from finetune_api.wire import JsonObject
from finetune_local.jobs import Jobs
from finetune_local.objects import Objects
from finetune_operator.core.decide import decide
from finetune_operator.core.deletion import ObservedModel, decide_model, has_files_to_delete
from finetune_operator.core.model_files import (
    continues_from,
    going_files,
    may_adopt,
    shares_files,
)
from finetune_operator.core.observed import Job, Observed, controller_of
from finetune_operator.core.plan import Action, Create, CreateService
from finetune_operator.settings import Settings

IDLE_SECONDS = 30.0  # without a change or a due decision
CALM_SECONDS = 0.2  # between two rounds, so that several changes at once cost one

logger = logging.getLogger(__name__)


class Operator:
    """Decides on all FineTunes and Models, again after each change."""

    def __init__(
        self,
        objects: Objects,
        jobs: Jobs,
        settings: Settings,
        tell: Callable[[str, EventEntry], None],
    ) -> None:
        """tell: is called with the name of a FineTune and each new Event."""
        self._objects = objects
        self._jobs = jobs
        self._settings = settings
        self._tell = tell
        self._services: set[str] = set()
        self._owned: dict[str | None, list[JsonObject]] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            change = asyncio.ensure_future(self._objects.change())
            wait = self.decide_all(datetime.now(UTC))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await change
            change.cancel()
            await asyncio.sleep(CALM_SECONDS)

    def decide_all(self, now: datetime) -> float:
        """One round; returns the seconds until the next one without a change."""
        waits = [IDLE_SECONDS]
        self._owned = self._group_jobs()
        for obj in self._objects.list("finetunes"):
            waits.append(self._guarded(self._decide, obj, now))
        for obj in self._objects.list("models"):
            waits.append(self._guarded(self._decide_model, obj, now))
        self._remove_orphans()
        return min(waits)

    def _guarded(
        self, decide_one: Callable[[JsonObject, datetime], float], obj: JsonObject, now: datetime
    ) -> float:
        """One object that cannot be read or decided must not stop the others."""
        try:
            return decide_one(obj, now)
        except Exception:
            logger.exception("no decision on %s", obj["metadata"]["name"])
            return IDLE_SECONDS

    def _decide(self, obj: JsonObject, now: datetime) -> float:
        finetune = FineTune.parse(obj)
        observed = self._observe(finetune)
        if finetune.status.state in names.TERMINAL_STATES and not observed.jobs:
            return IDLE_SECONDS
        plan = decide(observed, self._settings, now)
        for action in plan.actions:
            self._act(action)
        self._write(finetune, plan.status)
        return IDLE_SECONDS if plan.requeue_after is None else plan.requeue_after

    def _observe(self, finetune: FineTune) -> Observed:
        jobs = tuple(map(self._jobs.parsed, self._owned.get(finetune.metadata.uid, ())))
        is_resolved = finetune.status.resolved is not None  # no Model is needed after that
        models = () if is_resolved else tuple(self._objects.list("models"))
        going = (going_files(model) for model in self._objects.list("models"))
        return Observed(
            finetune,
            jobs=jobs,
            services=frozenset(self._services),
            models=tuple(Model.parse(model) for model in models),
            progress=self._report(jobs),
            going_models=frozenset(uri for uri in going if uri is not None),
            is_live=True,
        )

    def _group_jobs(self) -> dict[str | None, list[JsonObject]]:
        """The Jobs by the UID of their owner. Only the decision on a FineTune changes its Jobs."""
        found: dict[str | None, list[JsonObject]] = {}
        for job in self._objects.list("jobs"):
            found.setdefault(controller_of(job), []).append(job)
        return found

    def _report(self, jobs: tuple[Job, ...]) -> ProgressReport | None:
        attempts = [job for job in jobs if job.component == names.COMPONENT_TRAIN]
        newest = max(attempts, key=lambda job: job.attempt or 0, default=None)
        pod = self._jobs.pod(newest.uid) if newest is not None else None
        return pod.report if pod is not None else None

    def _act(self, action: Action) -> None:
        if isinstance(action, CreateService):
            self._services.add(action.job_name)
        elif isinstance(action, Create):
            self._create(action.manifest)
        else:
            job = self._objects.get("jobs", action.name)
            if job is not None and job["metadata"]["uid"] == action.uid:
                self._jobs.delete(job)

    def _create(self, manifest: JsonObject) -> None:
        """Create a Job or a Model. One that exists is ours: no one else writes the folder."""
        kind = manifest["kind"]
        try:
            if kind == "Job":
                self._jobs.start(self._objects.add("jobs", manifest))
            elif kind == "Model":
                self._objects.add("models", manifest)
        except ValueError:
            logger.debug("%s %s exists already", kind, manifest["metadata"]["name"])

    def _write(self, finetune: FineTune, status: FineTuneStatus) -> None:
        if status == finetune.status:
            return
        name = finetune.metadata.name
        obj = self._objects.get("finetunes", name)
        if obj is None or obj["metadata"]["uid"] != finetune.metadata.uid:
            return
        self._objects.put("finetunes", {**obj, "status": status.to_dict()})
        known = max((entry.seq or 0 for entry in finetune.status.events), default=0)
        for entry in status.events:
            if (entry.seq or 0) > known:
                self._tell(name, entry)

    def _decide_model(self, obj: JsonObject, now: datetime) -> float:
        model = Model.parse(obj)
        if model.metadata.deletion_timestamp is None:
            return IDLE_SECONDS
        plan = decide_model(self._observe_model(model), self._settings, now)
        if plan.create is not None:
            self._create(plan.create)
        if plan.kept is not None:
            logger.warning("%s", plan.kept)
        if plan.finalizers:
            if plan.status != model.status:
                self._objects.put("models", {**obj, "status": plan.status.to_dict()})
        else:
            self._objects.remove("models", model.metadata.name)
        if plan.delete is not None:
            job = self._objects.get("jobs", plan.delete.name)
            if job is not None:
                self._jobs.delete(job)
        return IDLE_SECONDS if plan.requeue_after is None else plan.requeue_after

    def _observe_model(self, model: Model) -> ObservedModel:
        if not has_files_to_delete(model):
            return ObservedModel(model)
        uid = model.metadata.uid
        jobs = [
            self._jobs.parsed(job)
            for job in self._objects.list("jobs")
            if job["metadata"]["labels"].get(names.LABEL_UID) == uid
        ]
        if jobs:
            return ObservedModel(model, jobs[0])
        others = self._objects.list("models")
        shared = next((it for it in others if shares_files(model, it)), None)
        users = self._objects.list("finetunes")
        used = next((it for it in users if continues_from(it, model) or may_adopt(it, model)), None)
        return ObservedModel(
            model,
            shared_with=shared["metadata"]["name"] if shared else None,
            used_by=used["metadata"]["name"] if used else None,
        )

    def _remove_orphans(self) -> None:
        """End the Jobs of FineTunes that were deleted, as the garbage collector does."""
        kept = {obj["metadata"]["uid"] for obj in self._objects.list("finetunes")}
        for owner, jobs in self._group_jobs().items():
            if owner is not None and owner not in kept:
                for job in jobs:
                    self._jobs.delete(job)
