"""Reads a FineTune and its children from the API server, without a cache."""

import asyncio
from dataclasses import dataclass

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.model import Model
from finetune_api.names import State
from finetune_api.outcome import ProgressReport
from finetune_api.wire import JsonObject
from finetune_operator.build.identity import attempt_name
from finetune_operator.core.key import Key
from finetune_operator.core.legacy_events import with_event_fields
from finetune_operator.core.observed import ForeignObject, Job, Observed
from finetune_operator.kube import paths, waiting
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.progress import ProgressReader


@dataclass(frozen=True)
class Observer:
    """Observes FineTunes. catalog: the names of base models, for which no Model is read."""

    client: Client
    progress: ProgressReader
    catalog: frozenset[str] = frozenset()
    kueue_version: str = ""

    async def observe(
        self, key: Key, foreign: tuple[ForeignObject, ...] = (), *, is_thorough: bool = False
    ) -> Observed | None:
        """Return None if the FineTune is gone.

        is_thorough: list the children of a new FineTune too; it has some only if an operator
        crashed after the first creation.
        """
        client = self.client
        try:
            raw = await client.get(f"{paths.finetunes(key.namespace)}/{key.name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        finetune = with_event_fields(FineTune.parse(raw))
        # A failed FineTune may have pods that still run.
        has_ended = finetune.status.state in names.TERMINAL_STATES - {State.FAILED}
        is_kept = finetune.spec.ttl_seconds_after_finished is None
        if finetune.metadata.deletion_timestamp or (has_ended and is_kept):
            return Observed(finetune)
        is_new = finetune.status.state is None and not finetune.spec.cancel
        if is_new and not is_thorough:
            models = await _models(client, finetune, self.catalog)
            return Observed(finetune, models=models, foreign=foreign, is_first=True)
        selector = f"{names.LABEL_UID}={finetune.metadata.uid}"
        jobs, pods = await _jobs_and_pods(client, finetune, selector)
        owned = tuple(_owned(jobs, pods, finetune.metadata.uid))
        await _confirm_missing(client, finetune, owned)
        parsed = await waiting.with_cause(client, finetune, owned, self.kueue_version)
        return Observed(
            finetune=finetune,
            jobs=parsed,
            services=await _services(client, finetune, parsed, selector),
            models=await _models(client, finetune, self.catalog),
            progress=await _progress(self.progress, Observed(finetune, parsed)),
            foreign=foreign,
        )


async def _jobs_and_pods(
    client: Client, finetune: FineTune, selector: str
) -> tuple[list[JsonObject], list[JsonObject]]:
    """Kueue suspends a Job before it deletes the pods: with such pods the Job is read again."""
    namespace = finetune.metadata.namespace
    jobs, pods = await asyncio.gather(
        client.list(paths.jobs(namespace), labelSelector=selector),
        client.list(paths.core(namespace, "pods"), labelSelector=selector),
    )
    if finetune.spec.queue_name and any("deletionTimestamp" in pod["metadata"] for pod in pods):
        jobs = await client.list(paths.jobs(namespace), labelSelector=selector)
    return jobs, pods


def _owned(jobs: list[JsonObject], pods: list[JsonObject], uid: str) -> list[Job]:
    """Anyone can write labels, so the UID of the owner decides."""
    found = [Job.parse(job, pods) for job in jobs]
    return [job for job in found if job.owner_uid == uid]


async def _confirm_missing(client: Client, finetune: FineTune, jobs: tuple[Job, ...]) -> None:
    """Raise ApiError if a list lacks the Job of an open attempt that a GET finds.

    A list may be older than the status, and a missing Job would end the FineTune permanently.
    """
    listed = {job.attempt for job in jobs}
    for attempt in finetune.status.attempts:
        if attempt.ended_at is not None or attempt.number in listed:
            continue
        name = attempt_name(finetune, attempt.number)
        try:
            raw = await client.get(f"{paths.jobs(finetune.metadata.namespace)}/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            if _owned([raw], [], finetune.metadata.uid):
                raise ApiError(409, f"Job {name} exists, but a list of an older state lacks it")


async def _services(
    client: Client, finetune: FineTune, jobs: tuple[Job, ...], selector: str
) -> frozenset[str]:
    """The names of the Services; nothing before the first attempt and once no pod needs one."""
    if not finetune.status.attempts or all(job.is_over for job in jobs):
        return frozenset()
    path = paths.core(finetune.metadata.namespace, "services")
    found = await client.list(path, labelSelector=selector)
    return frozenset(service["metadata"]["name"] for service in found)


async def _models(client: Client, finetune: FineTune, catalog: frozenset[str]) -> tuple[Model, ...]:
    """Read Models only for a name that the catalog lacks: there may be thousands."""
    if finetune.status.resolved is not None or finetune.spec.model in catalog:
        return ()
    found = await client.list(paths.models(finetune.metadata.namespace))
    return tuple(Model.parse(raw) for raw in found)


async def _progress(progress: ProgressReader, observed: Observed) -> ProgressReport | None:
    """The progress of the newest attempt."""
    attempts = observed.attempts
    return await progress.read(attempts[max(attempts)]) if attempts else None
