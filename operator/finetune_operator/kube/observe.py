"""Observes a FineTune and its children: from the store of the watches, or from the API server."""

import asyncio
import time
from dataclasses import dataclass, field, replace

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.model import Model
from finetune_api.outcome import ProgressReport
from finetune_api.wire import JsonObject
from finetune_operator.build import pod_group
from finetune_operator.build.identity import attempt_name
from finetune_operator.core.attempts.gangs import gang_of
from finetune_operator.core.attempts.results import find_adopted
from finetune_operator.core.events.legacy import with_event_fields
from finetune_operator.core.key import Key
from finetune_operator.core.model_files import going_files
from finetune_operator.core.observed import ForeignObject, Job, Observed, own_jobs
from finetune_operator.core.rivals import NO_RIVALS, Rivals
from finetune_operator.kube import paths, waiting
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.discovery import Api, ServedVersion
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.progress import ProgressReader
from finetune_operator.kube.rare_reads import RareReads
from finetune_operator.kube.store import Store

LONG_LOOK_SECONDS = 1.0
LOOKS = 3
POD_GROUPS = Api(pod_group.GROUP, "podgroups", pod_group.VERSIONS)


@dataclass(frozen=True)
class Observer:
    """Observes FineTunes. catalog: the names of base models, for which no Model is read."""

    client: Client
    store: Store
    progress: ProgressReader
    kueue: Kueue
    catalog: frozenset[str] = frozenset()
    pod_groups: ServedVersion | None = None  # None: they may not be created
    rare: RareReads = field(default_factory=RareReads)

    async def observe(self, key: Key, foreign: tuple[ForeignObject, ...] = ()) -> Observed | None:
        """Observe from the store, or live if it may lack children. None: the FineTune is gone."""
        known = self.store.view(key)
        if known is None:
            return await self.observe_live(key, foreign)
        finetune = with_event_fields(FineTune.parse(known.finetune))
        if finetune.metadata.deletion_timestamp:
            return Observed(finetune)
        if finetune.status.state is None and not finetune.spec.cancel and not known.is_complete:
            models = await self._models(finetune)
            return Observed(finetune, models=models, foreign=foreign)
        if not known.is_complete or _may_lag(known.jobs):
            return await self.observe_live(key, foreign)
        return await self._complete(Observed(finetune, known.jobs, foreign=foreign), known.served)

    async def observe_live(
        self, key: Key, foreign: tuple[ForeignObject, ...] = ()
    ) -> Observed | None:
        """Observe with three reads, and correct the store.

        If it took long, because the process was frozen or the API server is slow, a fourth read
        shows whether the FineTune has changed: Jobs of its future would look like those that a late
        request created, and be deleted.
        """
        client, namespace = self.client, key.namespace
        for _ in range(LOOKS):
            began = time.monotonic()
            raw = await self._read(key)
            if raw is None:
                return None
            finetune = with_event_fields(FineTune.parse(raw))
            if finetune.metadata.deletion_timestamp:
                return Observed(finetune, is_live=True)
            selector = f"{names.LABEL_UID}={finetune.metadata.uid}"
            jobs, pods = await asyncio.gather(
                client.get(paths.jobs(namespace), labelSelector=selector),
                client.get(paths.core(namespace, "pods"), labelSelector=selector),
            )
            going = any("deletionTimestamp" in pod["metadata"] for pod in pods.get("items", []))
            if going and any(_has_queue(job) for job in jobs.get("items", [])):
                # Kueue suspends a Job before it deletes the pods.
                jobs = await client.get(paths.jobs(namespace), labelSelector=selector)
            if time.monotonic() - began < LONG_LOOK_SECONDS or await self._is_current(key, raw):
                break
        else:
            raise ApiError(0, f"{key} changes faster than it is observed")
        known = self.store.replace(raw, jobs, pods)
        await _confirm_missing(client, finetune, known.jobs)
        finetune = with_event_fields(FineTune.parse(known.finetune))
        found = Observed(finetune, known.jobs, foreign=foreign, is_live=True)
        return await self._complete(found, known.served)

    async def _read(self, key: Key) -> JsonObject | None:
        """The FineTune; None if it is gone, which the store then knows."""
        try:
            return await self.client.get(f"{paths.finetunes(key.namespace)}/{key.name}")
        except ApiError as error:
            if error.status != 404:
                raise
            self.store.remove(key)
            return None

    async def _is_current(self, key: Key, raw: JsonObject) -> bool:
        now = await self._read(key)
        version = raw["metadata"].get("resourceVersion")
        return now is not None and now["metadata"].get("resourceVersion") == version

    async def _complete(self, found: Observed, served: frozenset[str]) -> Observed:
        """Add what is neither watched nor listed; nothing of it matters after the end."""
        finetune = found.finetune
        if finetune.status.state in names.TERMINAL_STATES:
            return found
        parsed = await waiting.with_cause(self.client, finetune, found.jobs, self.kueue, self.rare)
        return replace(
            found,
            jobs=parsed,
            services=await self._services(finetune, parsed, served),
            models=await self._models(finetune),
            going_models=await self._going_models(found),
            progress=await self._progress(found),
            rivals=self._rivals(finetune, parsed),
            group_version=await self._group_version(),
        )

    async def _group_version(self) -> str:
        version = await self.pod_groups.find(self.client) if self.pod_groups else None
        return version if version in POD_GROUPS.known else ""

    def _rivals(self, finetune: FineTune, jobs: tuple[Job, ...]) -> Rivals:
        """The gangs of the other FineTunes, if this one lacks nodes and holds others."""
        meta = finetune.metadata
        own = gang_of(meta.namespace, meta.name, meta.creation_timestamp, jobs, releases=0)
        return self.store.rivals(meta.uid) if own and own.is_partial else NO_RIVALS

    async def _services(
        self, finetune: FineTune, jobs: tuple[Job, ...], served: frozenset[str]
    ) -> frozenset[str]:
        """The names of the Services. They are listed only if that of the newest attempt is unknown.

        Only the operator creates them, so that no watch is needed.
        """
        trains = [job for job in jobs if job.component == names.COMPONENT_TRAIN]
        newest = max(trains, key=lambda job: job.attempt or 0, default=None)
        if newest is not None and not newest.is_over and newest.uid not in served:
            selector = f"{names.LABEL_UID}={finetune.metadata.uid}"
            path = paths.core(finetune.metadata.namespace, "services")
            found = await self.client.list(path, labelSelector=selector)
            owners = {
                owner["uid"] for item in found for owner in item["metadata"]["ownerReferences"]
            }
            self.store.serve(finetune.metadata.uid, owners)
            served |= owners
        return frozenset(job.name for job in trains if job.uid in served)

    async def _models(self, finetune: FineTune) -> tuple[Model, ...]:
        """The Models that the FineTune may mean.

        They are read only for a name that the catalog lacks, because there may be thousands. The
        others are not parsed, so that one that this version cannot read stops no FineTune.
        """
        wanted = finetune.spec.model
        if finetune.status.resolved is not None or wanted in self.catalog:
            return ()
        found = await self.client.list(paths.models(finetune.metadata.namespace))
        named = [raw for raw in found if wanted in (raw["metadata"]["name"], _model_id(raw))]
        return tuple(Model.parse(raw) for raw in named)

    async def _going_models(self, found: Observed) -> frozenset[str]:
        """The files that are being deleted. Only an adoption needs to know them."""
        job, finetune = found.prepare_job, found.finetune
        if finetune.status.attempts or job is None or find_adopted(job) is None:
            return frozenset()
        listed = self.client.pages(paths.models(finetune.metadata.namespace))
        return frozenset([uri async for raw in listed if (uri := going_files(raw)) is not None])

    async def _progress(self, observed: Observed) -> ProgressReport | None:
        """The progress of the newest attempt."""
        attempts = observed.attempts
        return await self.progress.read(attempts[max(attempts)]) if attempts else None


def _may_lag(jobs: tuple[Job, ...]) -> bool:
    """Whether a queue may have suspended a Job whose event comes later than those of its pods."""
    queued = [job for job in jobs if job.queue and not (job.is_suspended or job.is_going)]
    return any(pod.is_going for job in queued for pod in job.pods)


def _has_queue(job: JsonObject) -> bool:
    return names.LABEL_KUEUE_QUEUE in job["metadata"].get("labels", {})


async def _confirm_missing(client: Client, finetune: FineTune, jobs: tuple[Job, ...]) -> None:
    """Raise ApiError if a list lacks the Job of an open attempt that a GET finds.

    A list may be older than the status, and a missing Job would end the FineTune permanently. While
    the Job of the attempt before exists, a missing one only counts as not created yet.
    """
    listed = {job.attempt for job in own_jobs(finetune, jobs)}
    for attempt in finetune.status.attempts:
        if attempt.ended_at is not None or listed & {attempt.number, attempt.number - 1}:
            continue
        name = attempt_name(finetune, attempt.number)
        try:
            raw = await client.get(f"{paths.jobs(finetune.metadata.namespace)}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if own_jobs(finetune, [Job.parse(raw, [])]):
                raise ApiError(409, f"Job {name} exists, but a list of an older state lacks it")


def _model_id(raw: JsonObject) -> object:
    spec = raw.get("spec")
    return spec.get("id") if isinstance(spec, dict) else None
