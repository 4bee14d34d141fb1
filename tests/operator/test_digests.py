"""The watch events that cause a reconcile."""

from copy import deepcopy
from typing import Any

import pytest

from finetune_api.wire import JsonObject
from finetune_operator.core.observed import Pod
from finetune_operator.kube.digests import IGNORED_FIELDS
from finetune_operator.kube.store import Store
from tests.support.objects import World, a_finetune

TERMINATED = {"exitCode": 0, "reason": "Completed", "message": "{}"}


def a_world() -> World:
    return World().until_training()


def a_pod(component: str = "a1", **status: Any) -> JsonObject:
    world = a_world()
    pod = deepcopy(world.pod(component))
    pod["metadata"] |= {"uid": f"uid-{component}", "namespace": "team"}
    pod["status"] = {"phase": "Pending", **status}
    return pod


def container(**state: Any) -> JsonObject:
    return {"containerStatuses": [{"name": "main", "state": state}]}


def condition(kind: str, status: str = "True", **more: Any) -> JsonObject:
    return {"conditions": [{"type": kind, "status": status, **more}]}


QUIET: dict[str, JsonObject] = {
    "it is new": {},
    "it has a node": condition("PodScheduled"),
    "its image is pulled": container(waiting={"reason": "ContainerCreating"}),
    "it runs and is not ready": {"phase": "Running", "podIP": "10.0.0.1", **container(running={})},
}
NEWS: dict[str, JsonObject] = {
    "it is ready": {"phase": "Running", **condition("Ready")},
    "it can't be scheduled": condition("PodScheduled", "False", message="0/1 nodes"),
    "its image can't be pulled": container(waiting={"reason": "ErrImagePull", "message": "no"}),
    "it ended": {"phase": "Succeeded", **container(terminated=TERMINATED)},
    "it ended without a word": {"phase": "Running", **container(terminated={"exitCode": 0})},
    "it failed": {"phase": "Failed", "reason": "Evicted"},
    "its node goes": condition("DisruptionTarget", reason="DeletionByTaintManager"),
}


@pytest.mark.parametrize("status", QUIET.values(), ids=QUIET)
def test_changes_of_every_pod_cause_no_reconcile(status: JsonObject) -> None:
    assert not Store().saw("pods", a_pod(**status), "MODIFIED")


@pytest.mark.parametrize("status", NEWS.values(), ids=NEWS)
def test_a_change_that_a_decision_uses_counts_once(status: JsonObject) -> None:
    store = Store()
    pod = a_pod(**status)
    assert store.saw("pods", pod, "MODIFIED")
    pod["metadata"]["resourceVersion"] = "2"
    assert not store.saw("pods", pod, "MODIFIED")
    assert not store.saw("pods", pod, None), "a watch that is opened again repeats everything"
    assert Store().saw("pods", pod, None), "a new process knows nothing"


def test_a_pod_that_recovers_counts() -> None:
    store = Store()
    assert store.saw("pods", a_pod(**NEWS["it can't be scheduled"]), "MODIFIED")
    assert store.saw("pods", a_pod(), "MODIFIED")


def test_the_readiness_of_a_prepare_pod_does_not_count() -> None:
    status = NEWS["it is ready"]
    assert not Store().saw("pods", a_pod("prepare", **status), "MODIFIED")


def test_a_deletion_counts_once() -> None:
    store = Store()
    store.saw("pods", a_pod(), "ADDED")
    assert store.saw("pods", a_pod(), "DELETED")
    assert not store.saw("pods", a_pod(), "DELETED")


def test_a_pod_that_is_being_deleted_counts() -> None:
    pod = a_pod()
    pod["metadata"]["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    assert Store().saw("pods", pod, "MODIFIED")


def test_only_identifying_fields_of_a_pod_are_ignored() -> None:
    assert set(Pod.__dataclass_fields__) >= IGNORED_FIELDS


@pytest.mark.parametrize(
    ("change", "is_news"),
    [
        ({"status": {"active": 1, "ready": 1}}, False),
        ({"status": {"conditions": [{"type": "Complete", "status": "True"}]}}, False),
        ({"status": {"conditions": [{"type": "Failed", "status": "True", "message": "x"}]}}, True),
        ({"spec": {"suspend": True}}, True),
        ({"metadata": {"deletionTimestamp": "2026-11-21T12:00:00Z"}}, True),
    ],
)
def test_a_job_counts_when_it_fails_is_suspended_or_is_deleted(
    change: JsonObject, is_news: bool
) -> None:
    world = a_world()
    job = deepcopy(world.jobs[world.job("a1")])
    job["metadata"]["namespace"] = "team"
    store = Store()
    assert not store.saw("jobs", job, "ADDED"), "the operator created it"
    for part, fields in change.items():
        job[part] = {**job.get(part, {}), **fields}
    assert store.saw("jobs", job, "MODIFIED") is is_news


def finetune(**changes: Any) -> JsonObject:
    status = a_world().status.to_dict()
    meta = {"name": "tone", "namespace": "team", "uid": "u", "generation": 1}
    return {"metadata": meta, "spec": {}, "status": status, **changes}


def test_our_own_status_write_does_not_count_but_any_other_does() -> None:
    store, raw = Store(), finetune()
    store.saw("finetunes", finetune(status={}), "ADDED")
    store.expect("u", 1, a_world().status)
    assert not store.saw("finetunes", raw, "MODIFIED")
    raw["status"]["message"] = "written by hand"
    assert store.saw("finetunes", raw, "MODIFIED")


@pytest.mark.parametrize(
    "changed",
    [{"generation": 2}, {"deletionTimestamp": "2026-11-21T12:00:00Z"}, {"uid": "another"}],
)
def test_an_edit_a_deletion_and_a_new_finetune_of_the_same_name_count(changed: JsonObject) -> None:
    store, raw = Store(), finetune()
    store.saw("finetunes", finetune(status={}), "ADDED")
    store.expect("u", 1, a_world().status)
    raw["metadata"] |= changed
    assert store.saw("finetunes", raw, "MODIFIED")


def test_a_number_is_the_same_with_and_without_a_fraction() -> None:
    store, raw = Store(), finetune(status={"progress": {"loss": 1.0, "step": 1}})
    assert store.saw("finetunes", raw, "MODIFIED")
    again = finetune(status={"progress": {"step": 1, "loss": 1}})
    assert not store.saw("finetunes", again, "MODIFIED")


def test_a_new_finetune_counts() -> None:
    assert Store().saw("finetunes", finetune(status=None), "ADDED")
    assert a_finetune().status.state is None
