"""Digests of what decisions use of an object, so that other changes cause no reconcile.

A FineTune, its Jobs, and its pods change about thirty times during their life, and about five of
the changes matter. The sweep and the requeues of decisions make up for a missed change.
"""

from collections.abc import Hashable
from dataclasses import fields
from typing import Any

from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, Pod

QUIET = 0  # digest of a child that is unchanged since its creation
ALIVE = {"Pending", "Running"}  # decisions use only the readiness in these phases
# read with real changes
IGNORED_FIELDS = {
    *("name", "index", "attempt", "ip", "node", "container", "memory_limit", "started_at"),
    *("uid", "waiting_container", "running_init", "priority", "placed_at", "is_gated"),
}
POD_FIELDS = tuple(item.name for item in fields(Pod) if item.name not in IGNORED_FIELDS)
IGNORED_REASONS = {"ContainerCreating", "PodInitializing"}  # every pod starts like this


def digest_of_finetune(generation: int, status: JsonObject, *, is_going: bool) -> int:
    return hash((generation, is_going, _frozen(status)))


def digest_of_job(job: Job) -> int:
    values = (job.is_going, job.is_suspended, job.has_failed, job.failure)
    return hash(values) if any(values) else QUIET


def digest_of_pod(pod: Pod, *, trains: bool) -> int:
    """trains: whether it is a pod of an attempt, whose readiness matters."""
    found: dict[str, Hashable] = {name: getattr(pod, name) for name in POD_FIELDS} | {
        "phase": None if pod.phase in ALIVE else pod.phase,
        "is_ready": pod.is_ready and trains,
    }
    if pod.waiting_reason in IGNORED_REASONS:
        found |= {"waiting_reason": None, "waiting_message": None}
    values = tuple(found.values())
    return QUIET if all(value is None or value is False for value in values) else hash(values)


def _frozen(value: Any) -> Hashable:
    """A hashable form that is equal for equal JSON values, in any order of keys."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
