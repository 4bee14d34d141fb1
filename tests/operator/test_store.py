"""What the watches report, late, twice, in any order, or never, does not lead decisions back."""

import gc
import random
import tracemalloc
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import pytest

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.core.key import Key
from finetune_operator.kube.store import DELETED_AT_MOST, Store
from tests.support.objects import UID

TONE = Key("team", "tone")


def a_finetune(version: int | str, state: str | None = "running", **more: Any) -> JsonObject:
    meta = {"name": "tone", "namespace": "team", "uid": UID, "generation": 1}
    spec = {"trainingFile": "s3://bucket/train.jsonl", **more.pop("spec", {})}
    status = {} if state is None else {"state": state}
    return {
        "metadata": {**meta, "resourceVersion": str(version), **more},
        "spec": spec,
        "status": status,
    }


def a_job(version: int | str, number: int = 1, uid: str = "", **more: Any) -> JsonObject:
    labels = {names.LABEL_UID: UID, names.LABEL_FINETUNE: "tone"}
    labels |= {names.LABEL_COMPONENT: "train", names.LABEL_ATTEMPT: str(number)}
    return {
        "metadata": {
            "name": f"ft-tone-a{number}",
            "namespace": "team",
            "uid": uid or f"job-{number}",
            "resourceVersion": str(version),
            "labels": labels,
            "ownerReferences": [{"uid": UID, "controller": True}],
            **more.pop("metadata", {}),
        },
        "spec": {"template": {"spec": {"containers": [{"name": "main"}]}}},
        "status": {},
        **more,
    }


def a_pod(version: int | str, number: int = 1, index: int = 0, **more: Any) -> JsonObject:
    job = a_job(version, number)["metadata"]
    owner = {"uid": more.pop("owner", job["uid"]), "controller": True}
    meta = {"name": f"{job['name']}-{index}", "uid": f"pod-{number}-{index}"}
    return {
        "metadata": {**job, **meta, "ownerReferences": [owner]},
        "spec": {},
        "status": {"phase": "Pending", **more},
    }


def ended(kind: str = "Complete") -> JsonObject:
    return {"conditions": [{"type": kind, "status": "True"}]}


def a_list(version: int | str, *items: JsonObject) -> JsonObject:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


def a_store(*jobs: JsonObject, state: str = "running") -> Store:
    store = Store()
    store.replace(a_finetune(10, state), a_list(10, *jobs), a_list(10))
    return store


def jobs_of(store: Store) -> dict[str, Any]:
    view = store.view(TONE)
    return {job.uid: job for job in view.jobs} if view else {}


# --- order ----------------------------------------------------------------------------------------


def test_an_older_version_never_replaces_a_newer_one() -> None:
    store = a_store(a_job(9))
    assert store.saw("jobs", a_job(12, spec=suspended()), "MODIFIED")
    assert not store.saw("jobs", a_job(11), "MODIFIED")
    assert jobs_of(store)["job-1"].is_suspended
    assert not store.saw("finetunes", a_finetune(9, "pending"), "MODIFIED")
    view = store.view(TONE)
    assert view is not None
    assert view.finetune["status"]["state"] == "running"


def suspended() -> JsonObject:
    return {**a_job(0)["spec"], "suspend": True}


def test_versions_are_compared_as_numbers_and_trusted_in_order_where_they_are_none() -> None:
    store = a_store(a_job(9))
    assert store.saw("jobs", a_job(10, spec=suspended()), "MODIFIED")
    assert store.saw("jobs", a_job("v-next"), "MODIFIED")
    assert not jobs_of(store)["job-1"].is_suspended
    assert store.saw("jobs", a_job("v-prior", spec=suspended()), "MODIFIED")
    assert jobs_of(store)["job-1"].is_suspended


def test_an_event_that_arrives_twice_counts_once() -> None:
    store = a_store(a_job(9))
    pod = a_pod(12, phase="Failed")
    assert store.saw("pods", pod, "MODIFIED")
    assert not store.saw("pods", pod, "MODIFIED")


def test_what_was_deleted_does_not_return_with_a_late_event() -> None:
    store = a_store(a_job(9))
    assert store.saw("jobs", a_job(12), "DELETED")
    assert not store.saw("jobs", a_job(11), "MODIFIED")
    assert not store.saw("pods", a_pod(13), "MODIFIED")
    assert jobs_of(store) == {}


def test_a_job_that_we_deleted_is_gone_before_its_event_and_after_late_ones() -> None:
    store = a_store(a_job(9))
    store.remove_job(UID, "job-1")
    assert jobs_of(store) == {}
    assert not store.saw("jobs", a_job(11), "MODIFIED")
    assert not store.saw("jobs", a_job(12), "DELETED")
    assert store.saw("jobs", a_job(14, uid="another"), "ADDED") is False, "a new one, as we made it"
    assert list(jobs_of(store)) == ["another"]


def test_an_object_that_lost_its_label_for_a_while_returns() -> None:
    store = a_store(a_job(9))
    store.saw("jobs", a_job(12), "DELETED")
    store.saw("jobs", a_job(13), "ADDED")
    assert list(jobs_of(store)) == ["job-1"]


def test_the_number_of_remembered_deletions_is_bounded() -> None:
    store = a_store()
    for number in range(DELETED_AT_MOST + 10):
        store.saw("jobs", a_job(12, uid=f"old-{number}"), "DELETED")
    assert len(store._deleted) == DELETED_AT_MOST


def test_a_finetune_of_the_same_name_replaces_the_former_one_in_any_order() -> None:
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0), (2, 1, 0), (0, 2, 1), (2, 0, 1)):
        store = a_store(a_job(9))
        events: list[tuple[JsonObject, str]] = [
            (a_finetune(12), "MODIFIED"),
            (a_finetune(15, None, uid="new"), "ADDED"),
            (a_finetune(14), "DELETED"),
        ]
        for number in order:
            store.saw("finetunes", *events[number])
        view = store.view(TONE)
        assert view is not None
        assert view.finetune["metadata"]["uid"] == "new", order
        assert view.jobs == ()


# --- our own writes -------------------------------------------------------------------------------


def test_what_we_wrote_is_known_before_its_event() -> None:
    store = a_store()
    store.saw("jobs", a_job(20), None)
    store.serve(UID, ["job-1"])
    store.wrote(a_finetune(21, "pending"))
    assert not store.saw("finetunes", a_finetune(15), "MODIFIED")
    assert not store.saw("finetunes", a_finetune(21, "pending"), "MODIFIED")
    view = store.view(TONE)
    assert view is not None
    assert view.finetune["status"]["state"] == "pending"
    assert (list(jobs_of(store)), view.served) == (["job-1"], {"job-1"})


def test_a_finetune_that_we_ended_does_not_live_again() -> None:
    store = a_store(a_job(9, status=ended()))
    store.wrote(a_finetune(20, "succeeded"))
    assert store.is_settled(TONE)
    assert not store.saw("finetunes", a_finetune(15), "MODIFIED")
    assert not store.saw("finetunes", a_finetune("odd"), "MODIFIED")
    assert store.is_settled(TONE)
    assert store.view(TONE) is None


# --- what is complete -----------------------------------------------------------------------------


def test_children_are_complete_after_a_live_look_or_our_first_write() -> None:
    store = Store()
    store.saw("finetunes", a_finetune(10, None), "ADDED")
    store.saw("jobs", a_job(11), None)
    assert not view_of(store).is_complete
    store.saw("finetunes", a_finetune(12, "pending"), "MODIFIED")  # overtakes the answer
    store.wrote(a_finetune(12, "pending"), is_first=True)
    assert view_of(store).is_complete
    store.doubt(TONE)
    assert not view_of(store).is_complete
    store.wrote(a_finetune(13, "running"))
    assert not view_of(store).is_complete
    store.replace(a_finetune(13, "running"), a_list(13, a_job(11)), a_list(13))
    assert view_of(store).is_complete


def view_of(store: Store) -> Any:
    found = store.view(TONE)
    assert found is not None
    return found


def test_children_that_vanished_in_a_gap_of_a_watch_leave_with_a_live_look() -> None:
    store = a_store(a_job(9), a_job(9, 2))
    store.saw("pods", a_pod(9), "ADDED")
    store.replace(a_finetune(10), a_list(20, a_job(9, 2)), a_list(20))
    assert list(jobs_of(store)) == ["job-2"]
    assert not store.saw("jobs", a_job(11), "MODIFIED"), "its late event"


def test_a_list_of_an_old_state_removes_nothing_newer() -> None:
    store = a_store(a_job(9))
    store.saw("jobs", a_job(20, 2), None)
    store.saw("jobs", a_job(21, spec=suspended()), "MODIFIED")
    store.replace(a_finetune(10), a_list(15, a_job(9)), a_list(15))
    assert list(jobs_of(store)) == ["job-1", "job-2"]
    assert jobs_of(store)["job-1"].is_suspended


def test_only_children_of_the_owner_count() -> None:
    store = a_store()
    forged = a_job(12, metadata={"ownerReferences": [{"uid": "other", "controller": True}]})
    assert not store.saw("jobs", forged, "ADDED")
    assert not store.saw("jobs", a_job(12, metadata={"ownerReferences": []}), "ADDED")
    store.replace(a_finetune(10), a_list(15, forged), a_list(15, a_pod(12, owner="other")))
    assert jobs_of(store) == {}


def test_pods_are_those_of_the_job_in_their_order() -> None:
    store = a_store(a_job(9))
    late = a_pod(12, index=0)
    late["metadata"]["creationTimestamp"] = "2026-11-21T12:00:09Z"
    again = a_pod(13, index=0, phase="Failed")
    again["metadata"] |= {"uid": "former", "creationTimestamp": "2026-11-21T12:00:00Z"}
    for pod in (late, again, a_pod(14, index=1, owner="another job")):
        store.saw("pods", pod, "ADDED")
    assert [pod.phase for pod in jobs_of(store)["job-1"].pods] == ["Failed", "Pending"]


# --- what is settled ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", sorted(names.TERMINAL_STATES))
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_ended_finetunes_with_ended_jobs_are_settled_in_any_order_of_a_start(
    state: str, order: tuple[int, int, int]
) -> None:
    store, events = Store(), at_a_start(state, ended("Failed"))
    for number in order:
        store.saw(*events[number], None)
    assert store.is_settled(TONE)
    assert store.unsettled() == []


def at_a_start(state: str, status: JsonObject, **spec: Any) -> list[tuple[str, JsonObject]]:
    return [
        ("finetunes", a_finetune(12, state, spec=spec)),
        ("jobs", a_job(11, status=status)),
        ("pods", a_pod(11, phase="Succeeded")),
    ]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("spec", [{}, {"ttlSecondsAfterFinished": 60}])
def test_a_job_that_is_left_is_news_in_any_order_of_a_start(
    order: tuple[int, int, int], spec: dict[str, int]
) -> None:
    store, events = Store(), at_a_start("cancelled", {} if not spec else ended(), **spec)
    for number in order:
        store.saw(*events[number], None)
    assert not store.is_settled(TONE)
    assert store.unsettled() == [TONE]
    store.remove_job(UID, "job-1")
    assert store.is_settled(TONE)


def test_a_late_job_of_a_settled_finetune_is_news_until_it_goes() -> None:
    store = Store()
    store.saw("finetunes", a_finetune(12, "cancelled"), None)
    assert not store.saw("pods", a_pod(13), "ADDED")
    store.saw("jobs", a_job(13), "ADDED")
    assert not store.is_settled(TONE)
    store.saw("jobs", a_job(14, metadata={"deletionTimestamp": "2026-11-21T12:00:00Z"}), "MODIFIED")
    assert store.is_settled(TONE)


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "suspended"])
def test_a_late_job_of_a_finetune_at_rest_is_news_once(state: str) -> None:
    store = a_store(state="pending" if state == "suspended" else state)
    if state == "suspended":
        store.saw("finetunes", a_finetune(12, "pending", spec={"suspend": True}), "MODIFIED")
    assert store.saw("jobs", a_job(20), "ADDED")
    assert not store.saw("jobs", a_job(21), "MODIFIED")
    assert store.saw("jobs", a_job(22, uid="another"), "ADDED")


def test_the_end_of_the_last_job_is_not_worth_a_reconcile() -> None:
    store = a_store(a_job(9), state="succeeded")
    assert not store.is_settled(TONE)
    assert not store.saw("jobs", a_job(13, status=ended("Failed")), "MODIFIED")
    assert store.is_settled(TONE)


def test_a_deleted_finetune_leaves_nothing() -> None:
    store = a_store(a_job(9))
    store.saw("finetunes", a_finetune(13), "DELETED")
    store.saw("jobs", a_job(12), "MODIFIED")
    store.saw("pods", a_pod(12), "MODIFIED")
    assert (store.view(TONE), store.unsettled(), store._uids) == (None, [], {})


def test_a_sweep_forgets_settled_finetunes_whose_deletion_no_watch_reported() -> None:
    store = Store()
    store.saw("finetunes", a_finetune(12, "succeeded"), None)
    store.keep_only({TONE})
    assert store.is_settled(TONE)
    store.keep_only(set())
    assert (store._settled, store._uids) == ({}, {})


def test_children_whose_finetune_is_gone_are_forgotten_with_a_live_look() -> None:
    store = Store()
    store.saw("jobs", a_job(11), None)
    assert store.unsettled() == [TONE]
    store.remove(TONE)
    assert store.unsettled() == []
    assert not store.saw("jobs", a_job(12), "MODIFIED")


# --- any faults of the watches --------------------------------------------------------------------


@dataclass
class Cluster:
    """The truth, and the events of its changes that the watches have not delivered."""

    version: int = 10
    objects: dict[tuple[str, str], JsonObject] = field(default_factory=dict)
    events: list[tuple[str, JsonObject, str]] = field(default_factory=list)

    def write(self, plural: str, raw: JsonObject, event: str = "MODIFIED") -> JsonObject:
        self.version += 1
        raw = deepcopy(raw)
        raw["metadata"]["resourceVersion"] = str(self.version)
        if event == "DELETED":
            self.objects.pop((plural, raw["metadata"]["uid"]), None)
        else:
            self.objects[plural, raw["metadata"]["uid"]] = raw
        self.events.append((plural, raw, event))
        return raw

    def listed(self, plural: str) -> list[JsonObject]:
        return [raw for (kind, _), raw in self.objects.items() if kind == plural]


def versions(store: Store) -> dict[str, int]:
    view = store.view(TONE)
    if view is None:
        return {}
    known = {job.uid: int(job.version or 0) for job in view.jobs}
    return known | {UID: int(view.finetune["metadata"]["resourceVersion"])}


@pytest.mark.parametrize("seed", range(25))
def test_the_store_never_runs_backwards_and_a_live_look_makes_it_exact(seed: int) -> None:
    chance, cluster, store = random.Random(seed), Cluster(), Store()
    store.saw("finetunes", cluster.write("finetunes", a_finetune(0, None), "ADDED"), "ADDED")
    dead: set[str] = set()
    for _ in range(60):
        before = versions(store)
        step = chance.randrange(7)
        jobs = cluster.listed("jobs")
        if step == 0:  # our own creation
            number = cluster.version
            written = cluster.write("jobs", a_job(0, number), "ADDED")
            store.saw("jobs", written, None)
            assert versions(store)[written["metadata"]["uid"]] == cluster.version
        elif step == 1 and jobs:  # our own deletion
            job = chance.choice(jobs)
            cluster.write("jobs", job, "DELETED")
            store.remove_job(UID, job["metadata"]["uid"])
            dead.add(job["metadata"]["uid"])
        elif step == 2:  # our own status write
            cluster.write("finetunes", a_finetune(0, chance.choice(["pending", "running"])))
            store.wrote(cluster.events[-1][1])
            assert versions(store)[UID] == cluster.version
        elif step == 3 and jobs:  # a change by another
            cluster.write("jobs", {**chance.choice(jobs), "spec": suspended()})
        elif step == 4 and jobs and chance.random() < 0.3:  # a deletion by another
            cluster.write("jobs", chance.choice(jobs), "DELETED")
        elif cluster.events:  # an event: in any order, and perhaps again or never
            index = chance.randrange(len(cluster.events))
            store.saw(*cluster.events[index])
            if chance.random() < 0.7:
                del cluster.events[index]
        after = versions(store)
        assert all(after[uid] >= version for uid, version in before.items() if uid in after)
        assert not dead & after.keys()
    store.replace(
        cluster.listed("finetunes")[0],
        a_list(cluster.version, *cluster.listed("jobs")),
        a_list(cluster.version),
    )
    exact = {
        raw["metadata"]["uid"]: int(raw["metadata"]["resourceVersion"])
        for raw in cluster.objects.values()
    }
    assert versions(store) == exact
    for event in chance.sample(cluster.events, len(cluster.events)):
        store.saw(*event)
    assert versions(store) == exact, "no late event changes it"


# --- memory ---------------------------------------------------------------------------------------


def family(number: int, state: str, version: int) -> list[tuple[str, JsonObject, str]]:
    """A FineTune with a Job and two pods, as a watch reports them."""
    uid, name = f"00000000-0000-0000-0000-{number:012}", f"tone-{number}"
    finetune = a_finetune(version, state, uid=uid, name=name)
    finetune["status"]["history"] = "x" * 3000
    job = a_job(version, uid=f"job-{uid}", status=ended() if state == "succeeded" else {})
    pods = [a_pod(version, index=index, owner=f"job-{uid}") for index in range(2)]
    for child in (job, *pods):
        child["metadata"]["labels"] |= {names.LABEL_UID: uid, names.LABEL_FINETUNE: name}
    job["metadata"]["ownerReferences"] = [{"uid": uid, "controller": True}]
    for index, pod in enumerate(pods):
        pod["metadata"]["uid"] = f"pod-{uid}-{index}"
    return [
        ("finetunes", finetune, "MODIFIED"),
        ("jobs", job, "MODIFIED"),
        *(("pods", pod, "MODIFIED") for pod in pods),
    ]


def bytes_of(store: Store, count: int, *states: str, deletes: bool = False) -> float:
    """Bytes of memory per FineTune in the store, once many FineTunes have passed these states."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            for version, state in enumerate(states, 1):
                for event in family(number, state, version):
                    store.saw(*event)
            if deletes:
                for plural, raw, _ in family(number, states[-1], len(states) + 1):
                    store.saw(plural, raw, "DELETED")
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()


def test_settled_finetunes_take_less_than_a_kilobyte_and_active_ones_some() -> None:
    assert bytes_of(Store(), 40, "running") < 8000
    assert bytes_of(Store(), 40, "running", "succeeded") < 1000
    assert bytes_of(Store(), 40, "succeeded") < 1000


def test_wave_after_wave_of_deleted_finetunes_takes_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("finetune_operator.kube.store.DELETED_AT_MOST", 100)
    store = Store()
    bytes_of(store, 50, "running", "succeeded", deletes=True)
    assert bytes_of(store, 50, "running", "succeeded", deletes=True) < 1000
    assert (store._families, store._uids, store._settled) == ({}, {}, {})
