"""Observations of a FineTune and its children over HTTP are consistent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest

from finetune_api.outcome import Adopted
from finetune_operator.core.key import Key
from finetune_operator.kube import observe
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.observe import Observer
from finetune_operator.kube.progress import ProgressReader
from finetune_operator.kube.store import Store
from tests.operator.conftest import Answers
from tests.support.objects import World, a_finetune, prepared

FINETUNE = "/apis/finetune.dev/v1alpha1/namespaces/team/finetunes/tone"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PODS = "/api/v1/namespaces/team/pods"
SERVICES = "/api/v1/namespaces/team/services"


ROOT = "s3://bucket/out/team"
TONE = Key("team", "tone")


@asynccontextmanager
async def an_observer() -> AsyncIterator[Observer]:
    async with Client() as client, ProgressReader() as progress:
        yield Observer(client, Store(), progress, Kueue(client, may_read=False), frozenset({"ada"}))


def served(world: World, answers: Answers) -> Answers:
    """The world as the answers of an API server."""
    answers[FINETUNE] = {
        "metadata": world.finetune.metadata.to_dict(),
        "spec": world.finetune.spec.to_dict(),
        "status": world.status.to_dict(),
    }
    answers[JOBS] = list(world.jobs.values())
    answers[PODS] = pods_of(world)
    owners = {name: [{"uid": world.jobs[name]["metadata"]["uid"]}] for name in world.services}
    answers[SERVICES] = [
        {"metadata": {"name": name, "ownerReferences": found}} for name, found in owners.items()
    ]
    return answers


def pods_of(world: World) -> list[dict[str, Any]]:
    pods = [pod for pods in world.pods.values() for pod in pods]
    for pod in pods:
        pod["metadata"] |= {"uid": f"uid-{pod['metadata']['name']}", "namespace": "team"}
    return pods


def watched(world: World, observer: Observer) -> None:
    """The world as the watches report it."""
    meta = world.finetune.metadata.to_dict()
    raw = {"metadata": meta, "spec": world.finetune.spec.to_dict()}
    observer.store.saw("finetunes", raw | {"status": world.status.to_dict()}, "MODIFIED")
    for job in world.jobs.values():
        job["metadata"]["namespace"] = "team"
        observer.store.saw("jobs", job, "MODIFIED")
    for pod in pods_of(world):
        observer.store.saw("pods", pod, "MODIFIED")


def paths_asked(answers: Answers) -> list[str]:
    return [path for path, _ in answers.asked]


async def test_pods_that_are_deleted_are_observed_with_the_job_that_the_queue_suspended(
    answers: Answers,
) -> None:
    world = World(a_finetune(queueName="gpus")).until_training()
    world.admit("a1")
    for pod in world.pods[world.job("a1")]:
        pod["metadata"]["deletionTimestamp"] = "2026-11-21T12:05:00Z"
    before: list[dict[str, Any]] = deepcopy(list(world.jobs.values()))
    world.jobs[world.job("a1")]["spec"]["suspend"] = True
    served(world, answers)
    # The queue suspends the Job between the two lists, and its pods are deleted before the second.
    turns = iter([before, list(world.jobs.values())])
    answers[JOBS] = lambda: next(turns)
    async with an_observer() as observer:
        seen = await observer.observe(TONE)
    assert seen is not None
    assert seen.attempts[1].is_suspended


async def test_pods_that_are_deleted_without_a_queue_cost_no_further_request(
    answers: Answers,
) -> None:
    world = World().until_training()
    world.pod("a1")["metadata"]["deletionTimestamp"] = "2026-11-21T12:05:00Z"
    served(world, answers)
    async with an_observer() as observer:
        await observer.observe(TONE)
    assert paths_asked(answers).count(JOBS) == 1


async def test_a_new_finetune_costs_no_read_until_a_creation_finds_its_object(
    answers: Answers,
) -> None:
    world = World()
    world.step(writes=False)  # the operator crashed before the status write
    served(world, answers)
    async with an_observer() as observer:
        watched(World(), observer)
        first = await observer.observe(TONE)
        assert answers.asked == []
        second = await observer.observe_live(TONE)
    assert first is not None
    assert second is not None
    assert (first.is_live, first.jobs) == (False, ())
    assert (second.is_live, len(second.jobs)) == (True, 1)


async def test_the_first_look_after_a_start_is_live_and_later_ones_read_nothing(
    answers: Answers,
) -> None:
    world = World().until_training()
    served(world, answers)
    async with an_observer() as observer:
        watched(world, observer)
        first = await observer.observe(TONE)
        asked = paths_asked(answers)
        second = await observer.observe(TONE)
        observer.store.doubt(TONE)
        third = await observer.observe(TONE)
    assert first is not None
    assert second is not None
    assert asked == [FINETUNE, JOBS, PODS, SERVICES]
    assert paths_asked(answers) == 2 * asked, "the third look"
    assert (first.jobs, first.services) == (second.jobs, second.services)
    assert first == third


async def test_a_slow_look_is_repeated_if_the_finetune_has_changed(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen between the reads would see the Jobs of a later state."""
    world = World().until_training()
    served(world, answers)
    monkeypatch.setattr(observe, "LONG_LOOK_SECONDS", 0)
    get = Client.get

    async def changing(client: Client, path: str, **options: str) -> Any:
        found = await get(client, path, **options)
        if path == JOBS and paths_asked(answers).count(JOBS) == 1:
            newer = deepcopy(answers[FINETUNE])
            newer["metadata"]["resourceVersion"] = "900"
            newer["status"]["message"] = "resumed"
            answers[FINETUNE] = newer
        return found

    monkeypatch.setattr(Client, "get", changing)
    async with an_observer() as observer:
        seen = await observer.observe_live(TONE)
    assert seen is not None
    assert seen.finetune.status.message == "resumed"
    look = [FINETUNE, JOBS, PODS, FINETUNE]
    assert sorted(paths_asked(answers)) == sorted([*look, *look, SERVICES])


async def test_a_finetune_that_never_rests_is_not_decided_on(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(World().until_training(), answers)
    monkeypatch.setattr(observe, "LONG_LOOK_SECONDS", 0)

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(Observer, "_is_current", never)
    async with an_observer() as observer:
        with pytest.raises(ApiError, match="changes faster"):
            await observer.observe_live(TONE)


async def test_a_finetune_that_is_gone_is_forgotten(answers: Answers) -> None:
    async with an_observer() as observer:
        watched(World().until_training(), observer)
        assert await observer.observe(TONE) is None
        assert observer.store.view(TONE) is None


async def test_pods_that_go_before_the_event_of_their_suspended_job_are_read(
    answers: Answers,
) -> None:
    world = World(a_finetune(queueName="gpus")).until_training()
    world.admit("a1")
    served(world, answers)
    async with an_observer() as observer:
        watched(world, observer)
        await observer.observe(TONE)
        world.pod("a1")["metadata"]["deletionTimestamp"] = "2026-11-21T12:05:00Z"
        watched(world, observer)
        world.jobs[world.job("a1")]["spec"]["suspend"] = True
        seen = await observer.observe(TONE)
    assert seen is not None
    assert seen.attempts[1].is_suspended


async def test_children_of_a_new_cancelled_finetune_are_read(answers: Answers) -> None:
    world = World(a_finetune(cancel=True))
    served(world, answers)
    async with an_observer() as observer:
        await observer.observe(TONE)
    assert JOBS in paths_asked(answers)


async def test_the_services_are_listed_only_while_pods_run(answers: Answers) -> None:
    world = World().until_running()
    served(world, answers)
    async with an_observer() as observer:
        await observer.observe(TONE)
        assert paths_asked(answers).count(SERVICES) == 1
        for index in range(len(world.pods[world.job("a1")])):
            world.end_pod("a1", index, 0, None)
        served(world, answers)
        observer.store.doubt(TONE)
        await observer.observe(TONE)
    assert paths_asked(answers).count(SERVICES) == 1


async def test_a_model_that_cannot_be_parsed_stops_no_finetune_that_means_another(
    answers: Answers,
) -> None:
    spec = {
        "id": "ada:ft-team:first",
        "base": "ada",
        "uri": "s3://bucket/out/team/first-11111111/model",
        "fineTune": {"name": "first", "uid": "u"},
        "contextLength": 256,
        "pretrainingLearningRate": 0.001,
    }
    models = "/apis/finetune.dev/v1alpha1/namespaces/team/models"
    odd = [{"metadata": {"name": "odd"}, "spec": bad} for bad in ({"id": 3}, None, {"id": []})]
    meta = {"name": "first", "namespace": "team", "uid": "u"}
    answers[models] = [*odd, {"metadata": meta, "spec": spec}]
    for wanted in ("first", "ada:ft-team:first"):
        world = World(a_finetune(model=wanted))
        async with an_observer() as observer:
            watched(world, observer)
            found = await observer.observe(TONE)
        assert found is not None
        assert [model.metadata.name for model in found.models] == ["first"]


async def test_the_models_that_are_being_deleted_are_listed_only_for_an_adoption(
    answers: Answers,
) -> None:
    models = "/apis/finetune.dev/v1alpha1/namespaces/team/models"
    word = Adopted(
        uid="aaaaaaaa-2222-3333-4444-555555555555",
        fine_tuned_model="ada:ft-team-2026-11-20-12-00-00",
        model_manifest_sha256="0" * 64,
        trained_tokens=1,
        steps=1,
    )
    for adopted, going in ((None, frozenset()), (word, {"s3://bucket/out/team/tone-1/model"})):
        world = World(a_finetune())
        world.settle()
        world.end_pod("prepare", 0, 0, prepared().replace(adopted=adopted))
        served(world, answers)
        answers[models] = [
            {"metadata": {"name": name, **meta}, "spec": {"uri": f"{ROOT}/{name}/model", **spec}}
            for name, meta, spec in (
                ("tone-1", {"deletionTimestamp": "2026"}, {"deletionPolicy": "Delete"}),
                ("tone-2", {"deletionTimestamp": "2026"}, {"deletionPolicy": "Retain"}),
                ("tone-3", {}, {"deletionPolicy": "Delete"}),
                ("tone-4", {"deletionTimestamp": "2026"}, {"uri": "no address"}),
            )
        ]
        answers.asked.clear()
        async with an_observer() as observer:
            found = await observer.observe_live(TONE)
        assert found is not None
        assert found.going_models == going
        assert paths_asked(answers).count(models) == bool(adopted)
