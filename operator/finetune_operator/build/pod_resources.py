"""Requests and limits of a pod: those of spec and runtime, and estimates where they give none."""

from typing import Any

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.quantities import gib_to_quantity
from finetune_operator.settings import EPHEMERAL_STORAGE, MEMORY, PrepareResources, Settings

RAISE = 1.5  # of the estimated memory request, after an attempt that ran out of host memory
RAISES_AT_MOST = 3  # to 3.4 times the estimate: beyond it, the memory is not the estimate's error


def pod_resources(
    finetune: FineTune, resolved: Resolved, settings: Settings, memory_raises: int = 0
) -> dict[str, Any]:
    """The resources of the container. Amounts of the spec and runtime are requests and limits.

    An estimate is only a request: it places the pod on a node with enough room, and a limit that is
    slightly too low would kill the training.
    """
    requested = with_defaults(finetune, resolved, settings).spec.resources
    amounts: dict[str, str] = {}
    if requested.cpu:
        amounts["cpu"] = requested.cpu
    if requested.memory:
        amounts[MEMORY] = requested.memory
    if requested.ephemeral_storage:
        amounts[EPHEMERAL_STORAGE] = requested.ephemeral_storage
    if requested.gpus_per_node:
        amounts[requested.gpu_resource] = str(requested.gpus_per_node)
    runtime = settings.runtime(resolved.runtime.name)
    for name, amount in (runtime.resources if runtime else {}).items():
        amounts.setdefault(name, str(amount))
    requests = amounts | estimated_requests(finetune, resolved, settings, memory_raises)
    limits = {"limits": amounts} if amounts else {}
    claims = [claim.of_container() for claim in (runtime.resource_claims if runtime else ())]
    return {
        **({"requests": requests, **limits} if requests else {}),
        **({"claims": claims} if claims else {}),
    }


def with_defaults(finetune: FineTune, resolved: Resolved, settings: Settings) -> FineTune:
    """The FineTune with the runtime's amounts of cpu, memory, and disk where it sets none."""
    runtime = settings.runtime(resolved.runtime.name)
    amounts = runtime.resources if runtime else {}
    given = finetune.spec.resources
    missing = {
        field: str(amounts[name])
        for field, name in _FIELDS.items()
        if name in amounts and getattr(given, field) is None
    }
    if not missing:
        return finetune
    return finetune.replace(spec=finetune.spec.replace(resources=given.replace(**missing)))


_FIELDS = {"cpu": "cpu", "memory": MEMORY, "ephemeral_storage": EPHEMERAL_STORAGE}


def small_pod_resources(
    finetune: FineTune, settings: Settings, amounts: PrepareResources, disk_gib: float
) -> dict[str, Any]:
    """The resources of a container that needs no GPU: requests and equal limits.

    disk_gib: what it writes at most. It is only requested, as in `estimated_requests`.
    """
    limits = amounts.amounts
    requests = dict(limits)
    if EPHEMERAL_STORAGE not in limits and _may_request_disk(finetune, settings):
        requests[EPHEMERAL_STORAGE] = gib_to_quantity(disk_gib)
    return {"requests": requests, "limits": limits}


def _may_request_disk(finetune: FineTune, settings: Settings) -> bool:
    # Models that train on CPU are small, and not every test cluster reports the disk of its nodes.
    allowed = _allowed_requests(finetune, settings)
    return EPHEMERAL_STORAGE in allowed and finetune.spec.resources.gpus_per_node > 0


def _allowed_requests(finetune: FineTune, settings: Settings) -> tuple[str, ...]:
    """What may be requested from an estimate."""
    return settings.queued_requests if finetune.spec.queue_name else settings.estimated_requests


def estimated_requests(
    finetune: FineTune, resolved: Resolved, settings: Settings, memory_raises: int = 0
) -> dict[str, str]:
    """The requests that follow from the estimate. A FineTune of an older version has none."""
    requested = with_defaults(finetune, resolved, settings).spec.resources
    estimates: dict[str, float | None] = {}
    if requested.memory is None:
        estimates[MEMORY] = (resolved.memory_per_pod_gib or 0) * RAISE**memory_raises
    if requested.ephemeral_storage is None and _may_request_disk(finetune, settings):
        estimates[EPHEMERAL_STORAGE] = resolved.storage_per_pod_gib
    allowed = _allowed_requests(finetune, settings)
    return {
        name: gib_to_quantity(gib) for name, gib in estimates.items() if gib and name in allowed
    }
