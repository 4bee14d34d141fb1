"""The deletion of a Model with a crash at each write, late creations, and changes by others.

The reconciler is the real one. The API server, the Job's pod, and the files are in memory.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import pytest

from finetune_api import names
from finetune_api.names import Reason
from finetune_api.outcome import Deleted, Outcome
from finetune_api.tasks import DeletionTask
from finetune_operator.core.key import Key
from finetune_operator.handlers.reconcile_model import ModelReconciler
from finetune_operator.kube import paths
from finetune_operator.kube.act import RefusedError
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.rare_reads import RareReads
from finetune_operator.kube.release_models import release_models
from tests.operator.test_deletion import HELD, SPEC
from tests.support.memory_api import Fault, MemoryApi, OperatorKilledError
from tests.support.objects import a_settings, failed

NAME, OTHER = "tone", "other"
MODEL = f"{paths.models('team')}/{NAME}"
JOBS, PODS = paths.jobs("team"), paths.core("team", "pods")
FINETUNES = paths.finetunes("team")
ROUNDS = 8
LOOP = asyncio.Runner()


def a_model(name: str, uri: str = SPEC["uri"], uid: str = "99999999-1") -> dict[str, Any]:
    spec = {**SPEC, "deletionPolicy": "Delete", "uri": uri}
    return {
        "kind": "Model",
        "metadata": {"name": name, "namespace": "team", "uid": uid},
        "spec": spec,
    }


class Scene:
    """A Model and another one, whose files are in a store, and an operator that may die."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.api = MemoryApi()
        self.api.add(paths.models("team"), a_model(NAME))
        other = a_model(OTHER, "s3://bucket/out/team/other-22222222/model", "22222222-1")
        self.api.add(paths.models("team"), other)
        self.files = {SPEC["uri"], other["spec"]["uri"]}
        self.deleted: Counter[str] = Counter()  # how often the files at an address were deleted
        self.runs = 0  # of pods
        self.has_doubts = False  # the manifest in the store is not that of the Model
        self.api.fault = fault
        self.start()

    def start(self) -> None:
        client = cast("Client", self.api)
        self.operator = ModelReconciler(
            client, a_settings(), Kueue(client, may_read=False), RareReads()
        )

    def reconcile(self, name: str = NAME) -> None:
        try:
            LOOP.run(self.operator.reconcile(Key("team", name, "Model")))
        except OperatorKilledError:
            self.start()
        except RefusedError as error:
            assert error.refusal.is_transient, error  # the queue tries again
        except ApiError as error:
            assert error.status in {0, 422}, error

    def run_pods(self) -> None:
        """Each Job deletes the files of its task, and its pod says so."""
        for path, job in list(self.api.objects.items()):
            meta = job["metadata"]
            if not path.startswith(JOBS) or f"{PODS}/{meta['name']}" in self.api.objects:
                continue
            self.runs += 1
            env = job["spec"]["template"]["spec"]["containers"][0]["env"]
            task = DeletionTask.model_validate_json(env[0]["value"])
            if self.has_doubts:
                outcome = failed(Reason.FOREIGN_FILES, "its manifest has another id")
            else:
                outcome = Outcome(deleted=Deleted(files=3))
                self.deleted[task.uri] += task.uri in self.files
                self.files.discard(task.uri)
            code = names.EXIT_USER if self.has_doubts else 0
            state = {"terminated": {"exitCode": code, "message": outcome.to_termination_message()}}
            owner = {"uid": meta["uid"], "controller": True}
            self.api.objects[f"{PODS}/{meta['name']}"] = {
                "metadata": {**meta, "ownerReferences": [owner]},
                "status": {
                    "phase": "Failed" if code else "Succeeded",
                    "containerStatuses": [{"state": state}],
                },
            }

    def collect(self) -> None:
        """The garbage collector removes pods without a Job."""
        for path in [path for path in self.api.objects if path.startswith(PODS)]:
            if path.replace(PODS, JOBS) not in self.api.objects:
                del self.api.objects[path]

    def settle(self, *steps: Callable[[], object]) -> None:
        for _ in range(ROUNDS):
            self.reconcile()
            for step in steps or (self.run_pods,):
                step()
            self.collect()

    @property
    def jobs(self) -> list[str]:
        return [path for path in self.api.objects if path.startswith(JOBS)]


def hold(scene: Scene) -> None:
    for _ in range(3):
        scene.reconcile()
    assert scene.api.objects[MODEL]["metadata"]["finalizers"] == HELD


def writes_of_a_calm_deletion() -> int:
    scene = Scene()
    hold(scene)
    scene.api.remove(MODEL)
    scene.settle()
    return len(scene.api.writes)


WRITES = 4  # finalizer, Job, finalizer, Job
FAULTS = [
    Fault(write, when) for write in range(1, WRITES + 1) for when in ("before", "after", "late")
]


@pytest.mark.parametrize(
    ("fault", "late_after"),
    [
        (fault, late_after)
        for fault in FAULTS
        for late_after in ((1, 3, ROUNDS) if fault.when == "late" else (1,))
    ],
    ids=str,
)
def test_a_crash_at_any_write_deletes_the_files_once(fault: Fault, late_after: int) -> None:
    """late_after: the round in which a late request is committed, perhaps after the Model's end."""
    scene = Scene(fault)
    hold(scene)
    scene.api.remove(MODEL)
    rounds = itertools.count(1)
    scene.settle(
        lambda: scene.api.commit_late() if next(rounds) >= late_after else None, scene.run_pods
    )
    scene.api.commit_late()
    scene.run_pods()
    scene.settle()
    assert MODEL not in scene.api.objects
    assert scene.jobs == []
    assert scene.deleted == {SPEC["uri"]: 1}
    assert len(scene.files) == 1
    assert f"{paths.models('team')}/{OTHER}" in scene.api.objects


def test_the_sweep_has_all_writes() -> None:
    assert writes_of_a_calm_deletion() == WRITES


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_crash_at_any_write_in_a_terminating_namespace_releases_the_model(fault: Fault) -> None:
    scene = Scene(fault)
    hold(scene)
    scene.api.is_terminating = True
    scene.api.remove(MODEL)
    scene.settle()
    assert MODEL not in scene.api.objects
    assert scene.jobs == []
    assert not scene.deleted


@pytest.mark.parametrize("fault", [*FAULTS, Fault(5, "before"), Fault(5, "after")], ids=str)
def test_a_crash_at_any_write_releases_a_model_whose_files_are_not_its_own(fault: Fault) -> None:
    scene = Scene(fault)
    scene.has_doubts = True
    hold(scene)
    scene.api.remove(MODEL)
    scene.settle()
    scene.api.commit_late()
    scene.settle()
    assert MODEL not in scene.api.objects
    assert scene.jobs == []
    assert not scene.deleted
    assert scene.runs <= (2 if fault.when == "late" else 1)  # of pods


def test_a_namespace_that_ends_while_the_job_waits_releases_the_model() -> None:
    scene = Scene()
    hold(scene)
    scene.api.remove(MODEL)
    scene.reconcile()
    assert scene.jobs
    scene.api.is_terminating = True
    scene.settle(lambda: None)
    assert MODEL not in scene.api.objects


def test_a_late_job_of_a_model_that_was_kept_is_removed_before_it_runs() -> None:
    """The owner gives up on the deletion while its creation is on the way."""
    scene = Scene(Fault(2, "late"))
    hold(scene)
    scene.api.remove(MODEL)
    scene.reconcile()
    scene.api.change(MODEL, lambda model: model["spec"].update(deletionPolicy="Retain"))
    scene.reconcile()
    assert MODEL not in scene.api.objects
    scene.api.commit_late()
    assert scene.jobs
    scene.reconcile()  # the event of the Job names the Model
    assert scene.jobs == []


def test_a_model_of_the_same_name_keeps_its_files_from_the_late_job_of_another() -> None:
    scene = Scene(Fault(2, "late"))
    hold(scene)
    scene.api.remove(MODEL)
    scene.reconcile()
    scene.api.change(MODEL, lambda model: model["spec"].update(deletionPolicy="Retain"))
    scene.reconcile()
    scene.api.add(paths.models("team"), a_model(NAME, uid="77777777-1"))
    scene.api.commit_late()
    scene.reconcile()
    assert scene.jobs == []
    assert MODEL in scene.api.objects


# --- FineTunes that continue from the Model ------------------------------------------------------


def a_user(name: str, state: str = "running") -> dict[str, Any]:
    status = {"state": state, "resolved": {"base": {"uri": SPEC["uri"]}}}
    return {"metadata": {"name": name}, "spec": {"model": SPEC["id"]}, "status": status}


def condition_of(scene: Scene) -> tuple[str, str]:
    (condition,) = scene.api.objects[MODEL]["status"]["conditions"]
    return condition["reason"], condition["message"]


def test_each_finetune_that_needs_the_files_delays_their_deletion() -> None:
    scene = Scene()
    for name in ("first", "second"):
        scene.api.add(FINETUNES, a_user(name))
    hold(scene)
    scene.api.remove(MODEL)
    for name in ("first", "second"):
        scene.settle()
        assert condition_of(scene)[0] == "InUse"
        assert f"FineTune {name} " in condition_of(scene)[1]
        assert scene.operator.find_waiting(Key("team", name)) == [Key("team", NAME, "Model")]
        ended = f"{FINETUNES}/{name}"
        scene.api.change(ended, lambda it: it["status"].update(state="cancelled"))
    scene.settle()
    assert MODEL not in scene.api.objects
    assert scene.deleted == {SPEC["uri"]: 1}


def test_a_waiting_deletion_reads_one_finetune_however_many_there_are() -> None:
    scene = Scene()
    for number in range(300):
        scene.api.add(FINETUNES, a_user(f"f{number}", "running" if number == 299 else "failed"))
    hold(scene)
    scene.api.remove(MODEL)
    scene.settle()
    scene.api.reads.clear()
    written = len(scene.api.writes)
    scene.reconcile()
    lists = [read for read in scene.api.reads if read == f"LIST {FINETUNES}"]
    assert lists == []
    assert f"GET {FINETUNES}/f299" in scene.api.reads
    assert len(scene.api.writes) == written


def test_a_terminating_namespace_wins_over_a_finetune_that_needs_the_files() -> None:
    scene = Scene()
    scene.api.add(FINETUNES, a_user("first"))
    hold(scene)
    scene.api.remove(MODEL)
    scene.settle()
    assert condition_of(scene)[0] == "InUse"
    scene.api.is_terminating = True
    scene.settle()
    assert MODEL not in scene.api.objects
    assert not scene.deleted


def test_a_copy_of_a_model_deletes_nothing() -> None:
    scene = Scene()
    scene.api.add(paths.models("team"), a_model("copy", f"{SPEC['uri']}/", "33333333-1"))
    hold(scene)
    scene.api.remove(MODEL)
    scene.settle()
    assert MODEL not in scene.api.objects
    assert not scene.deleted
    assert scene.jobs == []


# --- what must not be silent, and what must not wait ----------------------------------------------


def test_an_api_server_that_does_not_create_the_job_is_reported_after_a_while() -> None:
    scene = Scene()
    hold(scene)
    scene.api.remove(MODEL)
    for number in range(1, 4):
        scene.api.fault = Fault(len(scene.api.writes) + 1, "late")
        scene.reconcile()
        assert ("status" in scene.api.objects[MODEL]) is (number == 3)
    assert "cannot be created" in condition_of(scene)[1]
    scene.api.late.clear()
    scene.settle()
    assert scene.deleted == {SPEC["uri"]: 1}


@pytest.mark.parametrize("is_going", [True, False])
def test_a_model_of_a_newer_version_does_not_wait_for_its_files(is_going: bool) -> None:
    scene = Scene()
    hold(scene)
    scene.api.change(MODEL, lambda model: model["spec"].update(deletionPolicy="DeleteLater"))
    if is_going:
        scene.api.remove(MODEL)
    scene.settle()
    assert (MODEL in scene.api.objects) is not is_going
    assert not scene.deleted


# --- the end of the operator ---------------------------------------------------------------------


@pytest.mark.parametrize("is_terminating", [True, False])
@pytest.mark.parametrize("policy", ["Delete", "DeleteLater"])
def test_an_operator_that_ends_releases_only_models_of_a_terminating_namespace(
    is_terminating: bool, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.kube.release_models.PROBE_SECONDS", 0)
    scene = Scene()
    hold(scene)
    other = f"{paths.models('team')}/{OTHER}"
    scene.api.change(MODEL, lambda model: model["metadata"]["finalizers"].append("others"))
    scene.api.change(MODEL, lambda model: model["spec"].update(deletionPolicy=policy))
    scene.api.change(other, lambda model: model["metadata"].update(finalizers=HELD))
    scene.api.is_terminating = is_terminating
    LOOP.run(release_models(cast("Client", scene.api), a_settings()))
    left = scene.api.objects[MODEL]["metadata"]["finalizers"]
    assert left == (["others"] if is_terminating else [names.FINALIZER_MODEL, "others"])
