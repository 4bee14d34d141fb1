"""Reads Kueue's view of a suspended Job, in any version that the cluster serves.

No decision depends on it: without an answer, the status has fewer details.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, Workload
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, JsonObjects
from finetune_operator.kube.discovery import FORBIDDEN, NOT_FOUND, Api, ServedVersion

# v1beta1 and v1beta2 have the same queueName, active, conditions, and admissionChecks. What differs
# is not read: priority classes, topology assignments, and the units of durations.
VERSIONS = ("v1beta2", "v1beta1")
WORKLOADS = Api("kueue.x-k8s.io", "workloads", VERSIONS)
PENDING = Api("visibility.kueue.x-k8s.io", "localqueues/pendingworkloads", VERSIONS)

logger = logging.getLogger(__name__)


class Kueue:
    """Kueue of the cluster. It may be installed, upgraded, or removed while the operator runs."""

    def __init__(
        self,
        client: Client,
        *,
        may_read: bool,
        version: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """may_read: Workloads and queues. version: of an administrator, if it is served."""
        self._client = client
        self._may_read = may_read
        self._workloads = ServedVersion(WORKLOADS, version, clock)
        self._pending = ServedVersion(PENDING, version, clock)

    async def discover(self) -> None:
        """Look up the versions, so that the log of the start has them."""
        if self._may_read:
            await self._workloads.find(self._client)
            await self._pending.find(self._client)

    async def explain(self, namespace: str, job: Job) -> Job:
        """Return the suspended Job with its Workload, or with the note that it may have one."""
        if job.queue and not self._may_read:
            return job
        if await self._workloads.find(self._client) is None:
            return job
        if not self._may_read:
            return replace(job, may_have_workload=True)
        found = await self._list(
            self._workloads,
            lambda version: paths.workloads(namespace, version),
            labelSelector=f"{names.LABEL_KUEUE_JOB_UID}={job.uid}",
        )
        if found is None:
            return replace(job, may_have_workload=True)
        if not found:
            return job
        newest = max(found, key=lambda item: item["metadata"].get("creationTimestamp") or "")
        workload = Workload.parse(newest)
        if workload.queue is None:
            return replace(job, workload=workload)
        position = await self._position(namespace, workload.queue, newest["metadata"]["name"])
        return replace(job, workload=replace(workload, position=position))

    async def _position(self, namespace: str, queue: str, workload: str) -> int | None:
        pending = await self._list(
            self._pending, lambda version: paths.pending_workloads(namespace, queue, version)
        )
        return next((_place(item) for item in pending or () if _name(item) == workload), None)

    async def _list(
        self, api: ServedVersion, path: Callable[[str], str], **selectors: str
    ) -> JsonObjects | None:
        """List objects. None: they cannot be read."""
        version = await api.find(self._client)
        while version is not None:
            try:
                return await self._client.list(path(version), **selectors)
            except ApiError as error:
                served = None
                if error.status == NOT_FOUND:
                    served = await api.find_again(self._client, version)
                if served in (None, version):
                    is_usual = error.status in (FORBIDDEN, NOT_FOUND)
                    level = logging.DEBUG if is_usual else logging.WARNING
                    logger.log(level, "%s cannot be read: %s", path(version), error)
                    return None
                version = served
        return None


def _name(item: JsonObject) -> object:
    return item.get("metadata", {}).get("name")


def _place(item: JsonObject) -> int:
    """From 1. Kueue leaves out zeros in some versions."""
    return int(item.get("positionInLocalQueue") or 0) + 1
