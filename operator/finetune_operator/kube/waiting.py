"""Reads why the newest Job is waiting: from Events of the Job controller and the kubelet, and from
Kueue.

It is read only while pods are missing, so that a healthy FineTune costs no further request.
"""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, KubeletEvent, Pod
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, JsonObjects
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.rare_reads import RareReads

PODS_SECONDS = 10.0  # until the Job controller has created the pods of a Job it has processed
CONTROLLER_SECONDS = 180.0  # until it has processed a Job: it may have thousands of them
SILENT_SECONDS = 30.0  # until a pod with a node usually has started its first container
REPEATED_SECONDS = 180.0
EVENTS_AT_MOST = 50
# A container runs already, or the status of the pod says the same.
LATER_EVENTS = {"Unhealthy", "BackOff", "FailedScheduling"}
DENIED = {403, 404}  # no permission: the message has fewer details then

logger = logging.getLogger(__name__)


async def with_cause(
    client: Client, finetune: FineTune, jobs: tuple[Job, ...], kueue: Kueue, rare: RareReads
) -> tuple[Job, ...]:
    """Return the Jobs, the newest one with the known cause of its waiting."""
    if not jobs:
        return jobs
    newest = max(jobs, key=lambda job: (job.component == names.COMPONENT_LOOKUP, job.attempt or 0))
    if newest.is_suspended:
        explained = await kueue.explain(finetune.metadata.namespace, newest)
    elif newest.lacks_pods:
        explained = await with_refusal(client, finetune.metadata.namespace, newest, rare)
    elif (silent := _find_silent(newest)) is not None:
        event = await _kubelet_event(client, finetune, silent, rare)
        pods = tuple(
            replace(pod, kubelet_event=event) if pod is silent else pod for pod in newest.pods
        )
        explained = replace(newest, pods=pods)
    else:
        return jobs
    return tuple(explained if job is newest else job for job in jobs)


async def with_refusal(client: Client, namespace: str, job: Job, rare: RareReads) -> Job:
    """Return the Job, with the reason if its pods are overdue because they cannot be created."""
    if not (job.lacks_pods and _is_overdue(job)):
        return job
    refused = await rare.get(job.uid, lambda: _refusal(client, namespace, job))
    return replace(job, refused=refused)


def _is_overdue(job: Job) -> bool:
    """Whether the pods are late enough to list the Events of the namespace, which is expensive."""
    created = job.created_at
    limit = PODS_SECONDS if job.has_begun else CONTROLLER_SECONDS
    return created is not None and (datetime.now(UTC) - created).total_seconds() > limit


async def _refusal(client: Client, namespace: str, job: Job) -> str | None:
    """The message of the Job's last FailedCreate Event, from a quota or an admission policy."""
    found = await _list(
        client,
        paths.core(namespace, "events"),
        fieldSelector=f"involvedObject.uid={job.uid},reason=FailedCreate",
    )
    found.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return str(found[-1].get("message", ""))[:1500] if found else None


def _find_silent(job: Job) -> Pod | None:
    """A pod that has had a node for long, and whose status does not say why it does not start."""
    if job.is_going or job.has_failed or job.has_completed:
        return None
    limit = datetime.now(UTC) - timedelta(seconds=SILENT_SECONDS)
    for pod in job.pods:
        has_cause = pod.waiting_reason or pod.unscheduled_message or pod.is_going
        since = pod.started_at or job.created_at  # without the first one, the kubelet is silent
        is_late = since is not None and since < limit
        if pod.phase == "Pending" and pod.node and is_late and not has_cause:
            return pod
    return None


async def _kubelet_event(
    client: Client, finetune: FineTune, pod: Pod, rare: RareReads
) -> KubeletEvent | None:
    """The cause in the recent Events of the pod, or the init container that it waits for."""
    namespace = finetune.metadata.namespace
    cause = await rare.get(pod.uid, lambda: _cause(client, namespace, pod))
    if cause is None and pod.running_init:
        return KubeletEvent("", pod.running_init)
    return cause


async def _cause(client: Client, namespace: str, pod: Pod) -> KubeletEvent | None:
    """The cause in the recent Events of the pod.

    The kubelet repeats an Event after two minutes at the latest; an older one is over. The choice
    does not depend on the order: each change of the message costs a status write.
    """
    found = await _list(
        client,
        paths.core(namespace, "events"),
        fieldSelector=f"involvedObject.uid={pod.uid},type=Warning",
        limit=str(EVENTS_AT_MOST),
    )
    limit = datetime.now(UTC) - timedelta(seconds=REPEATED_SECONDS)
    recent = [event for event in found if _last_seen(event) > limit]
    causes = [event for event in recent if event.get("reason") not in LATER_EVENTS]
    causes.sort(key=lambda event: (_is_summary(event), str(event.get("message", ""))))
    if not causes:
        return None
    reason, message = causes[0].get("reason", ""), causes[0].get("message", "")
    return KubeletEvent(str(reason)[:128] or "Failed", str(message)[:1000])


def _is_summary(event: JsonObject) -> bool:
    """Whether it only says that volumes are missing: another Event then has the cause."""
    return str(event.get("message", "")).startswith("Unable to attach or mount volumes")


def _last_seen(event: JsonObject) -> datetime:
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    text = next((time for time in times if time), None)
    try:
        return datetime.fromisoformat(text) if text else datetime.min.replace(tzinfo=UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


async def _list(client: Client, path: str, **selectors: str) -> JsonObjects:
    """List objects; nothing if they cannot be read, because no decision depends on them."""
    try:
        return await client.list(path, **selectors)
    except ApiError as error:
        level = logging.DEBUG if error.status in DENIED else logging.WARNING
        logger.log(level, "%s cannot be read: %s", path, error)
        return []
