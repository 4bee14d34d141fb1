"""Drops watch events that change nothing that a decision uses.

A FineTune, its Jobs, and its pods change about thirty times during their life, and about five of
the changes matter. The filter compares the values that decisions use, not whole objects. The sweep
and the requeues of decisions make up for a missed change.
"""

from collections.abc import Hashable
from typing import Any

from finetune_api import names
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, Pod

QUIET = 0  # digest of a child that is unchanged since its creation
ALIVE = {"Pending", "Running"}  # decisions use only the readiness in these phases
# read with real changes
IGNORED_FIELDS = {
    *("name", "index", "attempt", "ip", "node", "container", "memory_limit", "started_at"),
    *("uid", "waiting_container", "running_init"),
}
IGNORED_REASONS = {"ContainerCreating", "PodInitializing"}  # every pod starts like this


class ChangeFilter:
    """Remembers a digest for each UID, so that thousands of unchanged objects cost little."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def is_news(self, kind: str, raw: JsonObject, event: str | None) -> bool:
        """Whether a decision may depend on the change. A deletion always counts."""
        uid = raw["metadata"]["uid"]
        if event == "DELETED":
            self._known.pop(uid, None)
            return True
        digest = _digest(kind, raw)
        former = self._known.get(uid, QUIET)
        self._known[uid] = digest
        return former != digest

    def expect(self, uid: str, generation: int, status: FineTuneStatus) -> None:
        """Ignore the event of a status write that is about to happen."""
        self._known[uid] = _digest_of_finetune(generation, False, status.to_dict())


def _digest(kind: str, raw: JsonObject) -> int:
    meta = raw["metadata"]
    if kind == "finetunes":
        is_going, status = "deletionTimestamp" in meta, raw.get("status") or {}
        return _digest_of_finetune(meta.get("generation", 0), is_going, status)
    if kind == "jobs":
        return _digest_of_job(Job.parse(raw, []))
    trains = meta.get("labels", {}).get(names.LABEL_COMPONENT) == names.COMPONENT_TRAIN
    return _digest_of_pod(Pod.parse(raw), trains=trains)


def _digest_of_finetune(generation: int, is_going: bool, status: JsonObject) -> int:
    return hash((generation, is_going, _frozen(status)))


def _frozen(value: Any) -> Hashable:
    """A hashable form that is equal for equal JSON values, in any order of keys."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _digest_of_job(job: Job) -> int:
    values = (job.is_going, job.is_suspended, job.has_failed, job.failure)
    return hash(values) if any(values) else QUIET


def _digest_of_pod(pod: Pod, *, trains: bool) -> int:
    fields = vars(pod) | {
        "phase": None if pod.phase in ALIVE else pod.phase,
        "is_ready": pod.is_ready and trains,
    }
    if pod.waiting_reason in IGNORED_REASONS:
        fields |= {"waiting_reason": None, "waiting_message": None}
    values = tuple(value for name, value in fields.items() if name not in IGNORED_FIELDS)
    return QUIET if all(value is None or value is False for value in values) else hash(values)
