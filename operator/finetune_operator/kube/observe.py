"""One look at a FineTune and at all that it owns, straight from the API server, never a cache."""

import asyncio
import logging

import aiohttp
from pydantic import ValidationError

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.model import Model
from finetune_api.names import State
from finetune_api.outcome import ProgressReport
from finetune_api.wire import JsonObject
from finetune_operator.build.identity import attempt_name
from finetune_operator.core.key import Key
from finetune_operator.core.observed import Job, Observed
from finetune_operator.kube import paths, waiting
from finetune_operator.kube.client import ApiError, Client

PROGRESS_TIMEOUT = aiohttp.ClientTimeout(total=3)

logger = logging.getLogger(__name__)


async def observe(
    client: Client,
    key: Key,
    foreign: tuple[str, ...] = (),
    kueue_version: str = "",
    catalog: frozenset[str] = frozenset(),
    *,
    is_thorough: bool = False,
) -> Observed | None:
    """None when the FineTune is gone.

    `catalog`: names that no Model has to be read for. A new FineTune owns nothing unless an
    operator died after its first creation: only a thorough look would find that.
    """
    try:
        raw = await client.get(f"{paths.finetunes(key.namespace)}/{key.name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    finetune = FineTune.parse(raw)
    # A failed one may have left pods that still work.
    has_ended = finetune.status.state in names.TERMINAL_STATES - {State.FAILED}
    is_kept = finetune.spec.ttl_seconds_after_finished is None
    if finetune.metadata.deletion_timestamp or (has_ended and is_kept):
        return Observed(finetune)
    is_new = finetune.status.state is None and not finetune.spec.cancel
    if is_new and not is_thorough:
        models = await _models(client, finetune, catalog)
        return Observed(finetune, models=models, foreign=foreign, is_first=True)
    selector = f"{names.LABEL_UID}={finetune.metadata.uid}"
    jobs, pods = await _jobs_and_pods(client, finetune, selector)
    owned = tuple(_owned(jobs, pods, finetune.metadata.uid))
    await _confirm_missing(client, finetune, owned)
    parsed = await waiting.explain_newest(client, finetune, owned, kueue_version)
    return Observed(
        finetune=finetune,
        jobs=parsed,
        services=await _services(client, finetune, parsed, selector),
        models=await _models(client, finetune, catalog),
        progress=await _progress(Observed(finetune, parsed)),
        foreign=foreign,
    )


async def _jobs_and_pods(
    client: Client, finetune: FineTune, selector: str
) -> tuple[list[JsonObject], list[JsonObject]]:
    """A queue suspends a Job, then its pods go: pods seen going need a Job read after them."""
    namespace = finetune.metadata.namespace
    jobs, pods = await asyncio.gather(
        client.list(paths.jobs(namespace), labelSelector=selector),
        client.list(paths.core(namespace, "pods"), labelSelector=selector),
    )
    if finetune.spec.queue_name and any("deletionTimestamp" in pod["metadata"] for pod in pods):
        jobs = await client.list(paths.jobs(namespace), labelSelector=selector)
    return jobs, pods


def _owned(jobs: list[JsonObject], pods: list[JsonObject], uid: str) -> list[Job]:
    """Labels can be written by anybody; the owner's UID decides."""
    found = [Job.parse(job, pods) for job in jobs]
    return [job for job in found if job.owner_uid == uid]


async def _confirm_missing(client: Client, finetune: FineTune, jobs: tuple[Job, ...]) -> None:
    """Raise ApiError for a list that lacks the Job of an open attempt which a GET still finds.

    A list may be older than the status, and a Job that is gone ends a FineTune for good.
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
                raise ApiError(409, f"Job {name} is there and was not listed: an old list")


async def _services(
    client: Client, finetune: FineTune, jobs: tuple[Job, ...], selector: str
) -> frozenset[str]:
    """Names; none before the first attempt is told of, nor once no pod needs one any more."""
    if not finetune.status.attempts or all(job.is_over for job in jobs):
        return frozenset()
    path = paths.core(finetune.metadata.namespace, "services")
    found = await client.list(path, labelSelector=selector)
    return frozenset(service["metadata"]["name"] for service in found)


async def _models(client: Client, finetune: FineTune, catalog: frozenset[str]) -> tuple[Model, ...]:
    """Read only for a name that the catalog does not have: there may be thousands."""
    if finetune.status.resolved is not None or finetune.spec.model in catalog:
        return ()
    found = await client.list(paths.models(finetune.metadata.namespace))
    return tuple(Model.parse(raw) for raw in found)


async def _progress(seen: Observed) -> ProgressReport | None:
    """From rank 0 of the newest attempt; a pod that can't be reached makes it stale, no more."""
    if not seen.attempts:
        return None
    pod = seen.attempts[max(seen.attempts)].rank0
    if pod is None or pod.ip is None or pod.phase != "Running":
        return None
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    url = f"http://{host}:{names.PORT_PROGRESS}/progress"
    try:
        async with (
            aiohttp.ClientSession(timeout=PROGRESS_TIMEOUT) as session,
            session.get(url) as response,
        ):
            body = await response.content.read(65536)
        return ProgressReport.model_validate_json(body)
    except (aiohttp.ClientError, OSError, TimeoutError, ValidationError) as error:
        if seen.finetune.status.state == State.RUNNING:
            logger.debug("progress of %s can't be read: %s", pod.name, error)
        return None
