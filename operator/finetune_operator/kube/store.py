"""The unfinished FineTunes and their children, from watches and from answers to our requests.

Decisions read it instead of the API server. Three rules keep it from running backwards: an older
resource version never replaces a newer one, a UID that was deleted never returns, and what we wrote
is in the store before the next decision. `Store.replace` corrects with lists of the API server what
the watches did not report.

A FineTune that has ended and whose Jobs have ended is settled: only its version is kept.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

import orjson

from finetune_api import names
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.wire import JsonObject
from finetune_operator.core.key import Key
from finetune_operator.core.observed import Job, Pod, controller_of
from finetune_operator.core.rivals import Rivals
from finetune_operator.kube.digests import QUIET, digest_of_finetune, digest_of_job, digest_of_pod
from finetune_operator.kube.family import Child, Family, Releases, is_left

DELETED_AT_MOST = 5000  # UIDs of deleted objects, whose late events are ignored
METADATA = (
    *("name", "namespace", "uid", "generation", "resourceVersion"),
    *("creationTimestamp", "deletionTimestamp", "finalizers"),
)


class _Settled(NamedTuple):
    """What is kept of a settled FineTune."""

    version: int | None
    has_ttl: bool


@dataclass(frozen=True)
class Snapshot:
    """What is known of a FineTune. is_complete: whether all of its children are."""

    finetune: JsonObject
    jobs: tuple[Job, ...]
    served: frozenset[str]  # UIDs of the Jobs whose Service exists
    is_complete: bool


class Store:
    """Holds a family for each FineTune that is not settled."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._uids: dict[Key, str] = {}
        self._settled: dict[str, _Settled] = {}  # by UID
        self._deleted: OrderedDict[str, int | None] = OrderedDict()  # UID -> version

    def saw(self, plural: str, raw: JsonObject, event: str | None) -> bool:
        """Take an object of a watch or an answer. Return whether a decision may depend on it."""
        if event == "DELETED":
            return self._saw_deletion(plural, raw)
        return self._saw_finetune(raw) if plural == "finetunes" else self._saw_child(plural, raw)

    def _saw_finetune(self, raw: JsonObject, *, is_own: bool = False) -> bool:
        meta, version = raw["metadata"], _version(raw)
        key, uid = Key.of(raw), meta["uid"]
        has_ended = _state(raw) in names.TERMINAL_STATES
        if self._is_dead(uid, version) or self._has_successor(key, uid, version):
            return False
        settled = self._settled.get(uid)
        if settled is not None and (has_ended or not _is_later(version, settled.version)):
            return has_ended
        family = self._families.get(uid)
        if family is None and has_ended:
            self._bind(key, uid)
            self._settled[uid] = _Settled(version, _has_ttl(raw))
            return True
        if family is None:
            family = self._families[uid] = Family(key, uid)
            self._settled.pop(uid, None)
        has_changed = self._take_finetune(family, raw, is_own=is_own)
        self._prune(family)
        return has_changed

    def _take_finetune(self, family: Family, raw: JsonObject, *, is_own: bool = False) -> bool:
        """Return whether it has changed for a decision."""
        version, meta = _version(raw), raw["metadata"]
        if family.finetune and not _is_newer(version, family.version):
            return False
        former = family.digest
        if not is_own:
            status, generation = raw.get("status") or {}, meta.get("generation", 0)
            is_going = "deletionTimestamp" in meta
            family.digest = digest_of_finetune(generation, status, is_going=is_going)
        family.key = Key.of(raw)
        family.finetune, family.version = _to_bytes(raw), version
        family.has_ended, family.has_ttl = _state(raw) in names.TERMINAL_STATES, _has_ttl(raw)
        family.is_suspended = bool(raw.get("spec", {}).get("suspend"))
        family.created, family.releases = meta.get("creationTimestamp") or "", Releases.of(raw)
        family.is_stale = True
        self._bind(family.key, family.uid)
        return is_own or former != family.digest

    def _saw_child(self, plural: str, raw: JsonObject) -> bool:
        meta = raw["metadata"]
        uid = meta.get("labels", {}).get(names.LABEL_UID, "")
        family, settled = self._families.get(uid), self._settled.get(uid)
        if self._is_dead(uid, None) or not _is_ours(plural, raw, uid):
            return False
        if family is None and settled is not None and not _is_left_of(settled, plural, raw):
            return False
        if family is None:
            key = Key(meta["namespace"], meta.get("labels", {}).get(names.LABEL_FINETUNE, ""))
            family = self._families[uid] = Family(key, uid)
            if settled is not None:
                family.has_ended = True
                family.version, family.has_ttl = settled
        has_changed = self._take_child(family, plural, raw)
        return not self._prune(family) and has_changed

    def _take_child(self, family: Family, plural: str, raw: JsonObject) -> bool:
        """Return whether it has changed for a decision."""
        meta, version, owner = raw["metadata"], _version(raw), controller_of(raw) or ""
        uid, known = meta["uid"], family.children[plural].get(meta["uid"])
        if self._is_dead(uid, version) or self._is_dead(owner, None):
            return False
        if known is not None and not _is_newer(version, known.version):
            return False
        value: Job | Pod
        if plural == "jobs":
            value = Job.parse(raw, [])
            digest = digest_of_job(value)
        else:
            value = Pod.parse(raw)
            component = meta.get("labels", {}).get(names.LABEL_COMPONENT)
            digest = digest_of_pod(value, trains=component == names.COMPONENT_TRAIN)
        created = (meta.get("creationTimestamp") or "", meta["name"])
        family.children[plural][uid] = Child(value, version, digest, owner, created)
        family.is_stale = True
        if known is None and plural == "jobs" and (family.has_ended or family.is_suspended):
            return True  # committed late: nothing else wakes a FineTune at rest
        return digest != (known.digest if known is not None else QUIET)

    def _saw_deletion(self, plural: str, raw: JsonObject) -> bool:
        meta = raw["metadata"]
        self._bury(meta["uid"], _version(raw))
        if plural == "finetunes":
            self._forget(meta["uid"], Key.of(raw))
            return True
        family = self._families.get(meta.get("labels", {}).get(names.LABEL_UID, ""))
        if family is None:
            return False
        known = family.children[plural].pop(meta["uid"], None)
        family.is_stale = True
        return not self._prune(family) and known is not None

    def view(self, key: Key) -> Snapshot | None:
        """Return what is known of a FineTune; None if that is nothing."""
        family = self._families.get(self._uids.get(key, ""))
        return _snapshot(family) if family is not None and family.finetune else None

    def rivals(self, uid: str) -> Rivals:
        """The gangs of all FineTunes but the one with the UID."""
        others = [family for other, family in self._families.items() if other != uid]
        times = [family.releases.at for family in others if family.releases]
        return Rivals(
            tuple(gang for family in others if (gang := family.lacking()) is not None),
            datetime.fromisoformat(max(times)) if times else None,
            any(family.is_leaving for family in others),
        )

    def is_settled(self, key: Key) -> bool:
        """Whether it has ended and nothing of it is left to delete, now or after its TTL."""
        uid = self._uids.get(key, "")
        return uid in self._settled and uid not in self._families

    def unsettled(self) -> list[Key]:
        return [family.key for family in self._families.values() if family.key.name]

    def doubt(self, key: Key) -> None:
        """Make the next observation of the FineTune a live one, including its Services."""
        family = self._families.get(self._uids.get(key, ""))
        if family is not None:
            family.is_complete = False
            family.served.clear()

    def expect(self, uid: str, generation: int, status: FineTuneStatus) -> None:
        """Ignore the event of a status write that is about to happen."""
        family = self._families.get(uid)
        if family is not None:
            family.digest = digest_of_finetune(generation, status.to_dict(), is_going=False)

    def wrote(self, raw: JsonObject, *, is_first: bool = False) -> None:
        """Take the answer to a status write. Before the first one, all children are our own."""
        family = self._families.get(raw["metadata"]["uid"])
        if family is not None and is_first:
            family.is_complete = True
        self._saw_finetune(raw, is_own=True)

    def serve(self, uid: str, job_uids: Iterable[str]) -> None:
        """Note that the Service of these Jobs exists. A deleted Job takes its Service along."""
        family = self._families.get(uid)
        if family is not None:
            family.served.update(job_uids)

    def remove_job(self, uid: str, job_uid: str) -> None:
        """Note that a Job is gone, whatever the watch still reports of it."""
        self._bury(job_uid)
        family = self._families.get(uid)
        if family is not None:
            family.children["jobs"].pop(job_uid, None)
            family.is_stale = True
            self._prune(family)

    def remove(self, key: Key) -> None:
        """Note that there is no FineTune of this name; children without one may remain."""
        orphans = [uid for uid, family in self._families.items() if family.key == key]
        for uid in {*orphans, self._uids.get(key, "")} - {""}:
            self._drop(uid, key)

    def keep_only(self, existing: set[Key]) -> None:
        """Forget settled FineTunes that no list has: a watch may have missed their deletion."""
        for key in self._uids.keys() - existing:
            if self.is_settled(key):
                self._drop(self._uids[key], key)

    def replace(self, raw: JsonObject, jobs: JsonObject, pods: JsonObject) -> Snapshot:
        """Take a FineTune and then read lists of its Jobs and pods. Return what is known now.

        A child that a list lacks is gone, unless it is known at a later version than the list.
        """
        uid = raw["metadata"]["uid"]
        family = self._families.get(uid) or Family(Key("", ""), uid)
        self._take_finetune(family, raw)
        for plural, answer in (("jobs", jobs), ("pods", pods)):
            items = [item for item in answer.get("items", []) if _is_ours(plural, item, uid)]
            listed, version = {item["metadata"]["uid"] for item in items}, _version(answer)
            known = family.children[plural]
            for child in known.keys() - listed:
                if not _is_later(known[child].version, version):
                    del known[child]
                    family.is_stale = True
                    self._bury(child, version)
            for item in items:
                self._take_child(family, plural, item)
        family.is_complete = True
        self._families[uid] = family
        found = _snapshot(family)
        self._prune(family)
        return found

    def _prune(self, family: Family) -> bool:
        """Keep only the version of a settled FineTune. Return whether it is settled."""
        if not family.is_settled:
            return False
        self._families.pop(family.uid, None)
        self._settled[family.uid] = _Settled(family.version, family.has_ttl)
        return True

    def _bind(self, key: Key, uid: str) -> None:
        """A name belongs to the newest UID: the former object was deleted."""
        former = self._uids.get(key)
        if former is not None and former != uid:
            self._drop(former, key)
        self._uids[key] = uid

    def _drop(self, uid: str, key: Key) -> None:
        """Forget an object that was deleted, and its late events."""
        self._bury(uid)
        self._forget(uid, key)

    def _forget(self, uid: str, key: Key) -> None:
        self._families.pop(uid, None)
        self._settled.pop(uid, None)
        if self._uids.get(key) == uid:
            del self._uids[key]

    def _has_successor(self, key: Key, uid: str, version: int | None) -> bool:
        """Whether a later FineTune has the name, so that this one was deleted."""
        other = self._uids.get(key)
        if other is None or other == uid:
            return False
        known = self._families.get(other) or self._settled.get(other)
        return known is not None and _is_later(known.version, version)

    def _bury(self, uid: str, version: int | None = None) -> None:
        self._deleted[uid] = version
        if len(self._deleted) > DELETED_AT_MOST:
            self._deleted.popitem(last=False)

    def _is_dead(self, uid: str, version: int | None) -> bool:
        """Whether the object was deleted. A later version had only lost its label for a while."""
        if uid not in self._deleted:
            return False
        if _is_later(version, self._deleted[uid]):
            del self._deleted[uid]
            return False
        return True


def _snapshot(family: Family) -> Snapshot:
    jobs = tuple(replace(job, pods=family.pods_of(job)) for job in family.jobs())
    finetune: JsonObject = orjson.loads(family.finetune)
    return Snapshot(finetune, jobs, frozenset(family.served), family.is_complete)


def _is_left_of(settled: _Settled, plural: str, raw: JsonObject) -> bool:
    """Whether a child unsettles its FineTune. Pods do not, because they go with their Jobs."""
    return plural == "jobs" and is_left(Job.parse(raw, []), settled.has_ttl)


def _is_ours(plural: str, raw: JsonObject, uid: str) -> bool:
    """Anyone can write labels, so the UID of the owner decides."""
    owner = controller_of(raw)
    return owner == uid if plural == "jobs" else owner is not None


def _version(raw: JsonObject) -> int | None:
    text = raw.get("metadata", {}).get("resourceVersion", "")
    return int(text) if text.isdecimal() else None


def _is_newer(version: int | None, known: int | None) -> bool:
    """Whether a version replaces the known one. Those that are no numbers come in their order."""
    return version is None or known is None or version > known


def _is_later(version: int | None, known: int | None) -> bool:
    return version is not None and known is not None and version > known


def _state(raw: JsonObject) -> str | None:
    state: str | None = (raw.get("status") or {}).get("state")
    return state


def _has_ttl(raw: JsonObject) -> bool:
    return raw["spec"].get("ttlSecondsAfterFinished") is not None


def _to_bytes(raw: JsonObject) -> bytes:
    """The fields that a decision uses; without managedFields, half of the size."""
    meta = {name: raw["metadata"][name] for name in METADATA if name in raw["metadata"]}
    value = {"metadata": meta, "spec": raw["spec"], "status": raw.get("status") or {}}
    return bytes(memoryview(orjson.dumps(value)))  # a copy: its buffer is up to ten times as large
