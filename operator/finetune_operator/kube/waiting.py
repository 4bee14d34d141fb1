"""Why the newest Job waits: its controller's complaints, and Kueue's where the chart allows it.

Read only while something is missing, so that a FineTune without trouble costs no further request.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.core.observed import Job, Workload
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, JsonObjects

PATIENCE_SECONDS = 2.0  # of a Job's controller that has looked at it, until its pods are there
LATE_SECONDS = 180.0  # of one that has not: it may have thousands to look at
DENIED = {403, 404}  # no right to read it, or no Kueue: the sentence is shorter then

logger = logging.getLogger(__name__)


async def explain_newest(
    client: Client, finetune: FineTune, jobs: tuple[Job, ...], kueue_version: str
) -> tuple[Job, ...]:
    """The Jobs, the newest with what is known about its waiting."""
    if not jobs:
        return jobs
    newest = max(jobs, key=lambda job: job.attempt or 0)
    if newest.is_suspended and finetune.spec.queue_name and kueue_version:
        workload = await _workload(client, finetune, newest, kueue_version)
        told = replace(newest, workload=workload)
    elif newest.lacks_pods and _is_overdue(newest):
        told = replace(newest, refused=await _refusal(client, finetune, newest))
    else:
        return jobs
    return tuple(told if job is newest else job for job in jobs)


def _is_overdue(job: Job) -> bool:
    """Whether the API server is worth a walk through all Events of the namespace."""
    made = job.created_at
    patience = PATIENCE_SECONDS if job.has_begun else LATE_SECONDS
    return made is not None and (datetime.now(UTC) - made).total_seconds() > patience


async def _refusal(client: Client, finetune: FineTune, job: Job) -> str | None:
    """The last FailedCreate Event of a Job: a quota, or an admission policy."""
    found = await _list(
        client,
        paths.core(finetune.metadata.namespace, "events"),
        fieldSelector=f"involvedObject.uid={job.uid},reason=FailedCreate",
    )
    found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return str(found[-1].get("message", ""))[:1500] if found else None


async def _workload(client: Client, finetune: FineTune, job: Job, version: str) -> Workload | None:
    namespace = finetune.metadata.namespace
    found = await _list(
        client,
        paths.workloads(namespace, version),
        labelSelector=f"{names.LABEL_KUEUE_JOB_UID}={job.uid}",
    )
    if not found:
        return None
    name = found[0]["metadata"]["name"]
    queue = finetune.spec.queue_name or ""
    pending = await _list(client, paths.pending_workloads(namespace, queue, version))
    places = [
        int(item.get("positionInLocalQueue", 0)) + 1
        for item in pending
        if item["metadata"]["name"] == name
    ]
    return Workload.parse(found[0], places[0] if places else None)


async def _list(client: Client, path: str, **selectors: str) -> JsonObjects:
    """Nothing where it may not be read: what it says is never needed to go on."""
    try:
        return await client.list(path, **selectors)
    except ApiError as error:
        level = logging.DEBUG if error.status in DENIED else logging.WARNING
        logger.log(level, "%s can't be read: %s", path, error)
        return []
