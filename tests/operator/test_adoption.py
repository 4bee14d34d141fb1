"""A FineTune adopts what a former one of its name has trained, as its prepare pod has verified."""

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from finetune_api import names
from finetune_api.layout import is_model_address
from finetune_api.model import Model
from finetune_api.outcome import Adopted, EpochMetrics, Outcome
from finetune_api.tasks import PrepareTask
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_operator.core.decide import decide
from finetune_operator.core.model_files import going_files, may_adopt
from finetune_operator.core.observed import ForeignObject
from finetune_operator.core.plan import Create, Plan
from finetune_operator.core.refusals import Refusal
from finetune_operator.core.refused_plan import refused_plan
from finetune_operator.kube import paths
from finetune_operator.kube.act import ForeignObjectError, create_ours
from finetune_operator.kube.client import Client
from tests.support import previous
from tests.support.memory_api import MemoryApi
from tests.support.objects import UID, World, a_finetune, prepared, trained

FORMER = "aaaaaaaa-2222-3333-4444-555555555555"
ROOT = "s3://bucket/out/team/tone-aaaaaaaa"
ID = "ada:ft-team:tone-2026-11-20-12-00-00"
NAME = "ada-ft-team-tone-2026-11-20-12-00-00"


def found(**changes: Any) -> Outcome:
    """The result of a prepare Job that has found a model."""
    values: dict[str, Any] = {
        "uid": FORMER,
        "fine_tuned_model": ID,
        "model_manifest_sha256": "0" * 64,
        "trained_tokens": 10_000,
        "steps": 50,
        "training_loss": 1.25,
        "epochs": [EpochMetrics(epoch=2, step=50, training_loss=1.25)],
    }
    return prepared().replace(adopted=Adopted(**(values | changes)))


def checked(outcome: Outcome | None = None, **spec: Any) -> World:
    """A FineTune whose prepare Job has ended with this result."""
    world = World(a_finetune(**spec))
    world.settle()
    world.end_pod("prepare", 0, 0, outcome or found())
    return world


def kinds(world: World) -> list[str]:
    return [made["kind"] for made in world.created]


def model_of(world: World) -> Model:
    [made] = [made for made in world.created if made["kind"] == "Model"]
    return Model.parse(made)


def test_the_model_is_adopted_without_training() -> None:
    world = checked()
    world.settle()
    status = world.status
    assert kinds(world) == ["Job", "Model"]
    assert (status.state, status.reason) == ("succeeded", "Adopted")
    assert FORMER in status.message and f"{ROOT}/model" in status.message
    assert (status.fine_tuned_model, status.model_uri) == (ID, f"{ROOT}/model")
    assert status.result_files == [f"{ROOT}/results.csv"]
    assert status.adopted_from.uid == FORMER
    assert (status.attempts, status.gpu_seconds, status.progress.percent) == ([], None, "100 %")
    assert [event.reason for event in status.events] == ["Created", "Adopted", "Succeeded"]
    assert f"{ROOT}/model" in status.events[1].message
    ready = next(item for item in status.conditions if item.type == "Ready")
    assert (ready.status, ready.reason) == ("True", "Adopted")


def test_the_model_keeps_its_files_and_names_its_origin() -> None:
    world = checked()
    world.settle()
    [made] = [made for made in world.created if made["kind"] == "Model"]
    model = Model.parse(made)
    assert model.metadata.name == NAME
    assert made["metadata"]["annotations"] == {names.ANNOTATION_ADOPTED_FROM: FORMER}
    assert made["metadata"]["labels"][names.LABEL_UID] == UID
    assert made["spec"]["deletionPolicy"] == "Retain"
    source = model.spec.fine_tune
    assert source is not None and source.uid == FORMER
    # so that a user who sets the policy to Delete can delete the files
    assert is_model_address(S3Uri.parse(model.spec.uri), "team", source.name, source.uid)


def test_a_crash_between_the_model_and_the_status_repeats_both() -> None:
    world = checked()
    world.step(writes=False)
    world.settle()
    models = [made for made in world.created if made["kind"] == "Model"]
    assert models[0] == models[1]  # the second one answers 409, and is ours
    assert world.status.reason == "Adopted"


@pytest.mark.parametrize(
    "word",
    [
        {"uid": "aaaaaaaa"},
        {"uid": "../../../x"},
        {"uid": FORMER.upper()},
        {"uid": FORMER + "0"},
        {"uid": UID},
        {"model_manifest_sha256": "0" * 63},
        {"model_manifest_sha256": "x" * 64},
        {"fine_tuned_model": "curie:ft-team:tone-2026-11-20-12-00-00"},
        {"fine_tuned_model": "ada:ft-other:tone-2026-11-20-12-00-00"},
        {"fine_tuned_model": "ada:ft-team\n"},
        {"fine_tuned_model": "ada:ft-team" + "x" * 256},
    ],
)
def test_a_word_of_another_form_is_not_trusted(word: dict[str, Any]) -> None:
    world = checked(found(**word))
    world.settle()
    assert kinds(world)[:2] == ["Job", "Job"]
    assert world.status.state == "pending"


def test_the_address_never_comes_from_the_pod() -> None:
    outcome = found().replace(trained=trained().trained)
    world = checked(outcome)
    world.settle()
    assert world.status.model_uri == f"{ROOT}/model"


@pytest.mark.parametrize("spec", [{"reuse": "Never"}, {"dryRun": True}])
def test_a_finetune_that_adopts_nothing_ignores_the_word(spec: dict[str, Any]) -> None:
    world = checked(**spec)
    task = PrepareTask.model_validate_json(world.task())
    assert task.reuse is None
    world.settle()
    assert "Model" not in kinds(world)
    assert world.status.reason == ("DryRun" if "dryRun" in spec else "Starting")


def test_the_prepare_pod_searches_by_default() -> None:
    world = World(a_finetune(suffix="Custom"))
    world.settle()
    task = PrepareTask.model_validate_json(world.task())
    assert task.reuse is not None
    assert (task.reuse.organization, task.reuse.suffix) == ("team", "Custom")


def test_a_cancelled_finetune_adopts_nothing() -> None:
    world = checked()
    spec = world.finetune.spec.replace(cancel=True)
    world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    assert (world.status.state, kinds(world)) == ("cancelled", ["Job"])


def test_a_suspended_finetune_adopts_because_nothing_trains() -> None:
    world = checked(suspend=True)
    world.settle()
    assert (world.status.state, world.status.reason) == ("succeeded", "Adopted")


def test_an_operator_that_was_away_for_longer_than_the_deadline_adopts() -> None:
    world = checked(pendingDeadlineSeconds=60)
    world.now = world.now.replace(year=world.now.year + 1)
    world.settle()
    assert world.status.reason == "Adopted"


def test_a_finetune_that_trains_already_goes_on() -> None:
    world = World().until_running()
    world.end_pod("prepare", 0, 0, found())
    world.settle()
    assert world.status.state == "running"
    assert "Model" not in kinds(world)


def test_files_that_are_being_deleted_are_not_adopted() -> None:
    world = checked()
    observed = replace(world.observe(), going_models=frozenset({f"{ROOT}/model"}))
    plan = decide(observed, world.settings, world.now)
    assert [made["kind"] for made in manifests(plan)] == ["Job"]


def manifests(plan: Plan) -> list[JsonObject]:
    return [action.manifest for action in plan.actions if isinstance(action, Create)]


def test_a_model_of_others_with_this_name_is_left_alone_and_the_finetune_trains() -> None:
    world = checked()
    taken = (ForeignObject("Model", NAME),)
    plan = decide(replace(world.observe(), foreign=taken), world.settings, world.now)
    assert [made["kind"] for made in manifests(plan)] == ["Job"]
    assert plan.status.state == "pending"
    assert any(NAME in event.message for event in plan.status.events)


def test_a_foreign_model_still_fails_a_finetune_that_has_trained() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    taken = (ForeignObject("Model", NAME),)
    plan = decide(replace(world.observe(), foreign=taken), world.settings, world.now)
    assert (plan.status.state, plan.status.reason) == ("failed", "ForeignObject")


def test_a_refused_model_waits_and_is_adopted_later() -> None:
    world = checked()
    observed = world.observe()
    plan = decide(observed, world.settings, world.now)
    refusal = Refusal("create", "Model", NAME, 403, "exceeded quota: models", (), (ID, ROOT))
    held = refused_plan(observed, plan, refusal, world.now)
    assert (held.status.state, held.status.stage) == ("pending", "publishing")
    world.finetune = world.finetune.replace(status=held.status)
    world.settle()
    assert world.status.reason == "Adopted"
    assert kinds(world) == ["Job", "Model"]


@pytest.mark.slow
def test_an_operator_of_the_previous_version_reads_the_result_and_trains() -> None:
    word = found().to_termination_message()
    text = previous.parse("finetune_api.outcome:Outcome", word)
    assert Outcome.parse(text) == found().replace(adopted=None)


@pytest.mark.slow
def test_a_prepare_image_of_the_previous_version_reads_the_task() -> None:
    world = World(a_finetune(suffix="Custom"))
    world.settle()
    task = PrepareTask.model_validate_json(world.task())
    text = previous.parse("finetune_api.tasks:PrepareTask", world.task())
    assert PrepareTask.model_validate_json(text) == task.replace(reuse=None)


# --- the API server -------------------------------------------------------------------------------


def existing(**changes: Any) -> JsonObject:
    """The Model of the former FineTune, as a backup brings it."""
    spec = {
        "id": ID,
        "uri": f"{ROOT}/model",
        "base": "ada",
        "manifestSha256": "0" * 64,
        "deletionPolicy": "Delete",
    }
    meta = {"name": NAME, "namespace": "team", "labels": {names.LABEL_UID: FORMER}}
    return {
        "kind": "Model",
        "metadata": meta | changes.pop("metadata", {}),
        "spec": spec | changes,
    }


def create(model: JsonObject, existing_model: JsonObject) -> bool:
    """Whether the existing Model counts as the adopted one."""
    api = MemoryApi()
    api.add(paths.models("team"), existing_model)
    before = dict(api.objects)
    try:
        asyncio.run(create_ours(cast("Client", api), "team", UID, model))
    except ForeignObjectError:
        return False
    finally:
        assert api.objects == before
    return True


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({}, True),
        ({"uri": f"{ROOT}/model/"}, True),
        ({"id": "ada:ft-team:tone-2026-11-20-12-00-01"}, False),
        ({"uri": "s3://bucket/out/team/tone-bbbbbbbb/model"}, False),
        ({"manifestSha256": "1" * 64}, False),
        ({"metadata": {"deletionTimestamp": "2026-11-21T12:00:00Z"}}, False),
    ],
)
def test_the_model_of_a_backup_is_adopted_as_it_is(changes: dict[str, Any], is_same: bool) -> None:
    world = checked()
    world.settle()
    [model] = [made for made in world.created if made["kind"] == "Model"]
    assert create(model, existing(**changes)) is is_same


def test_a_trained_model_never_takes_over_the_model_of_another() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    [model] = [made for made in world.created if made["kind"] == "Model"]
    other = existing(**{key: model["spec"][key] for key in ("id", "uri")})
    other["metadata"]["name"] = model["metadata"]["name"]
    assert create(model, other) is False


# --- the deletion of the former Model -------------------------------------------------------------


def a_model(**spec: Any) -> Model:
    raw = existing(pretrainingLearningRate=0.001, contextLength=256, **spec)
    raw["spec"]["fineTune"] = {"name": "tone", "uid": FORMER}
    return Model.parse(raw)


def raw_finetune(status: JsonObject | None = None, **changes: Any) -> JsonObject:
    meta = {"name": changes.pop("name", "tone"), "namespace": "team", "uid": UID}
    if changes.pop("going", False):
        meta["deletionTimestamp"] = "2026-11-21T12:00:00Z"
    if "uid" in changes:
        meta["uid"] = changes.pop("uid")
    return {"metadata": meta, "spec": changes, "status": status or {}}


RESOLVED = {"hyperparameters": {"nEpochs": 1}}


@pytest.mark.parametrize(
    ("finetune", "may"),
    [
        (raw_finetune(), True),
        (raw_finetune({"state": "pending", "resolved": {"base": {}}}), True),
        (raw_finetune({"state": "pending", "stage": "publishing", "resolved": RESOLVED}), True),
        (raw_finetune({"state": "pending", "stage": "queued", "resolved": RESOLVED}), False),
        (raw_finetune({"state": "running", "attempts": [{"number": 1}]}), False),
        (raw_finetune({"state": "succeeded"}), False),
        (raw_finetune(name="tone-2"), False),
        (raw_finetune(reuse="Never"), False),
        (raw_finetune(dryRun=True), False),
        (raw_finetune(going=True), False),
        (raw_finetune(uid=FORMER), False),
    ],
)
def test_a_deletion_waits_for_a_finetune_that_may_adopt(finetune: JsonObject, may: bool) -> None:
    assert may_adopt(finetune, a_model()) is may


@pytest.mark.parametrize(
    ("policy", "is_going", "found"),
    [("Delete", True, f"{ROOT}/model"), ("Delete", False, None), ("Retain", True, None)],
)
def test_only_a_model_that_deletes_its_files_prevents_an_adoption(
    policy: str, is_going: bool, found: str | None
) -> None:
    meta = {"deletionTimestamp": "2026-11-21T12:00:00Z"} if is_going else {}
    assert going_files(existing(metadata=meta, deletionPolicy=policy)) == found
