"""Requests and limits of a training pod: those of the spec, and estimates where it gives none."""

from typing import Any

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import Resolved
from finetune_api.quantities import gib_to_quantity
from finetune_operator.settings import EPHEMERAL_STORAGE, MEMORY, Settings

RAISE = 1.5  # of the estimated memory request, after an attempt that ran out of host memory
RAISES_AT_MOST = 3  # to 3.4 times the estimate: beyond it, the memory is not the estimate's error


def pod_resources(
    finetune: FineTune, resolved: Resolved, settings: Settings, memory_raises: int = 0
) -> dict[str, Any]:
    """The resources of the container. Amounts of the spec and runtime are requests and limits.

    An estimate is only a request: it places the pod on a node with enough room, and a limit that is
    slightly too low would kill the training.
    """
    requested = finetune.spec.resources
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
    return {"requests": requests, **limits} if requests else {}


def estimated_requests(
    finetune: FineTune, resolved: Resolved, settings: Settings, memory_raises: int = 0
) -> dict[str, str]:
    """The requests that follow from the estimate. A FineTune of an older version has none."""
    requested = finetune.spec.resources
    estimates: dict[str, float | None] = {}
    if requested.memory is None:
        estimates[MEMORY] = (resolved.memory_per_pod_gib or 0) * RAISE**memory_raises
    # Models that train on CPU are small, and not every test cluster reports the disk of its nodes.
    if requested.ephemeral_storage is None and requested.gpus_per_node:
        estimates[EPHEMERAL_STORAGE] = resolved.storage_per_pod_gib
    allowed = settings.queued_requests if finetune.spec.queue_name else settings.estimated_requests
    return {
        name: gib_to_quantity(gib) for name, gib in estimates.items() if gib and name in allowed
    }
