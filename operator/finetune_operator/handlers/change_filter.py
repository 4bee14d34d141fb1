"""What the watches told last of each object: an event that changes nothing wakes no reconcile.

A FineTune, its Jobs and its pods change about thirty times in a life, and decisions hang on five of
them. What a decision sees of an object is compared, never what the object is made of; the sweep and
the decisions' own appointments heal what might be missed.
"""

from collections.abc import Hashable
from typing import Any

from finetune_api import names
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Job, Pod

QUIET = 0  # of a child as it was ordered: nothing has come of it yet
ALIVE = {"Pending", "Running"}  # readiness says what a decision wants to know of them
READ_AGAIN = {"name", "index", "attempt", "ip", "node", "started_at"}  # with the first real news
UNTOLD_REASONS = {"ContainerCreating", "PodInitializing"}  # every pod begins so


class ChangeFilter:
    """By UID; a digest each, so that thousands of settled objects cost little."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def is_news(self, kind: str, raw: JsonObject, event: str | None) -> bool:
        """Whether a decision may see another object than before. Of a `DELETED` one always."""
        uid = raw["metadata"]["uid"]
        if event == "DELETED":
            self._known.pop(uid, None)
            return True
        digest = _digest(kind, raw)
        former = self._known.get(uid, QUIET)
        self._known[uid] = digest
        return former != digest

    def expect(self, uid: str, generation: int, status: FineTuneStatus) -> None:
        """A FineTune's status is about to be written: its event will tell nothing new."""
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
    """Equal for equal JSON values, in any order of keys and with 1 for 1.0."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(item)) for key, item in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _digest_of_job(job: Job) -> int:
    told = (job.is_going, job.is_suspended, job.has_failed, job.failure)
    return hash(told) if any(told) else QUIET


def _digest_of_pod(pod: Pod, *, trains: bool) -> int:
    told = vars(pod) | {
        "phase": None if pod.phase in ALIVE else pod.phase,
        "is_ready": pod.is_ready and trains,
    }
    if pod.waiting_reason in UNTOLD_REASONS:
        told |= {"waiting_reason": None, "waiting_message": None}
    values = tuple(value for name, value in told.items() if name not in READ_AGAIN)
    return QUIET if all(value is None or value is False for value in values) else hash(values)
