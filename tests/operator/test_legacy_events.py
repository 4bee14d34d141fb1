"""FineTunes that the previous operator version started continue and repeat no Event.

`older/statuses.json` has the status that the previous version wrote in each of these lives, in its
own words and without `attempt` and `key` in Events.
"""

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_api.finetune_status import EventEntry, FineTuneStatus
from finetune_api.names import Reason
from finetune_api.outcome import Outcome
from finetune_operator.core.events.legacy import with_event_fields
from finetune_operator.core.observed import Workload
from finetune_operator.kube.act import find_new_events
from tests.support.objects import (
    World,
    a_finetune,
    a_settings,
    failed,
    prepared,
    progress,
    trained,
)

OLDER: dict[str, Any] = json.loads((Path(__file__).parent / "older" / "statuses.json").read_text())
BEFORE = {"epoch": 0, "step": 0, "validation_loss": 2.98, "validation_sequence_accuracy": 0.5}
EPOCH = {"epoch": 1, "step": 25, "training_loss": 2.0, "learning_rate": 4e-5}
EPOCHS = {"before": BEFORE, "completed_epochs": [EPOCH], "step": 30}
CRASH = failed(
    Reason.RANK_CRASHED, "rank 1 was killed by signal 9 (SIGKILL)", rank=1, exit_code=137
)
KUEUE = {"kueueVersion": "v1beta1"}
ONCE = {"Created", "BaseModelLoaded", "Started", "BaseModelMeasured", "Succeeded", "ModelUploaded"}


def a_world(settings: dict[str, Any] | None = None, **spec: Any) -> World:
    """Its data is checked, with advice."""
    world = World(a_finetune(**spec), a_settings(**(settings or {})))
    if world.finetune.spec.queue_name and settings:
        cause = "insufficient unused quota"
        world.workload = Workload(waiting=cause, evicted=None, position=2)
    world.settle()
    advice = ["22 examples are duplicates of others", "prompts have no common end"]
    outcome = prepared()
    assert outcome.prepared is not None
    result = outcome.prepared.replace(advice=advice)
    world.end_pod("prepare", 0, 0, outcome.replace(prepared=result))
    world.settle()
    return world


def run(world: World, number: int = 1, **report: Any) -> World:
    if world.jobs[world.job(f"a{number}")]["spec"].get("suspend"):
        world.admit(f"a{number}")
    world.ready_pods(f"a{number}")
    world.progress = progress(attempt=number, **report)
    world.settle()
    return world


def crash(world: World, number: int, index: int = 1, outcome: Outcome | str = CRASH) -> World:
    world.end_pod(f"a{number}", index, 1, outcome)
    world.progress = None
    world.settle()
    return world


def suspend(world: World, value: bool) -> World:
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=value))
    if value:
        world.progress = None
    world.settle()
    return world


def resume(world: World, number: int) -> World:
    return run(suspend(world, False), number, resumed_from_step=25, **EPOCHS)


def evict(world: World) -> World:
    """The queue takes back the pods."""
    world.jobs[world.job("a1")]["spec"]["suspend"] = True
    world.workload = Workload("insufficient unused quota", "Preempted", position=3)
    world.progress = None
    world.pods[world.job("a1")] = []
    world.settle()
    return world


def succeed(world: World) -> World:
    outcome = trained()
    assert outcome.trained is not None
    outcome = outcome.replace(trained=outcome.trained.replace(first_loss=0.5))
    newest = world.job(f"a{world.status.attempts[-1].number}")[-2:]
    world.end_pod(newest, 0, 0, outcome)
    world.end_pod(newest, 1, 0, None)
    world.settle()
    return world


def cancel(world: World) -> World:
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    return world


def checking_data() -> World:
    world = World(a_finetune())
    world.settle()
    return world


def running() -> World:
    return run(a_world(), **EPOCHS)


def restarted() -> World:
    return run(crash(running(), 1), 2, resumed_from_step=25, **EPOCHS)


def again(world: World, number: int) -> World:
    return run(world, number, resumed_from_step=25, **(EPOCHS | {"step": 31}))


IN_VAIN = "restarted in vain"
UNRECORDED = "suspended after it was suspended before its first attempt"  # the second suspension
LIVES: dict[str, Callable[[], World]] = {
    "checking the data": checking_data,
    "queued": lambda: a_world(queueName="gpus"),
    "queued with a position": lambda: a_world(KUEUE, queueName="gpus"),
    "queued again with a position": lambda: evict(run(a_world(KUEUE, queueName="gpus"))),
    "running with epochs": running,
    "restarting": lambda: crash(running(), 1),
    "restarted": restarted,
    "restarted twice from the same step": lambda: again(crash(restarted(), 2), 3),
    IN_VAIN: lambda: crash(crash(running(), 1), 2, 0, "boom"),
    "restarted after an attempt in vain": lambda: again(LIVES[IN_VAIN](), 3),
    "waiting for a restart": lambda: crash(run(a_world({"restartSeconds": 10}), **EPOCHS), 1),
    "suspended": lambda: suspend(running(), True),
    "resumed and starting": lambda: suspend(suspend(running(), True), False),
    "resumed": lambda: resume(suspend(running(), True), 2),
    "suspended twice": lambda: suspend(resume(suspend(running(), True), 2), True),
    "suspended before its first attempt": lambda: a_world(suspend=True),
    UNRECORDED: lambda: suspend(run(suspend(a_world(suspend=True), False)), True),
    "succeeded": lambda: succeed(run(a_world())),
    "failed": lambda: crash(run(a_world(maxRestarts=0)), 1),
    "cancelled": lambda: cancel(run(a_world())),
}


def upgraded(life: str) -> World:
    """The cluster in that state, with the status of the previous version."""
    world = LIVES[life]()
    older = OLDER[life]
    world.now = datetime.fromisoformat(older["now"])
    status = FineTuneStatus.model_validate(older["status"])
    assert not any(entry.attempt or entry.key for entry in status.events)
    world.finetune = with_event_fields(world.finetune.replace(status=status))
    return world


def texts(world: World) -> list[tuple[str, str, str]]:
    return [(entry.at, entry.reason, entry.message) for entry in world.status.events]


def identity(entry: EventEntry) -> tuple[str, int | None, str | None]:
    return entry.reason, entry.attempt, entry.key


def test_each_life_has_a_status_of_the_previous_version() -> None:
    assert set(LIVES) == set(OLDER)
    reasons = {entry["reason"] for case in OLDER.values() for entry in case["status"]["events"]}
    assert reasons - set(Reason.__dict__.values()) == {
        *("Created", "Advice", "Enqueued", "BaseModelLoaded", "BaseModelMeasured", "Started"),
        *("EpochCompleted", "Restarted", "Resumed", "ModelUploaded", "ResultsUploaded"),
        "Diverged",
    }


@pytest.mark.parametrize("life", LIVES)
def test_an_upgrade_repeats_no_event(life: str) -> None:
    world = upgraded(life)
    before, old = world.status, texts(world)
    world.settle()
    assert texts(world) == old
    assert find_new_events(before, world.status) == []


@pytest.mark.parametrize("life", LIVES)
def test_the_fields_are_those_that_this_version_writes(life: str) -> None:
    """Equal texts of two attempts were one Event: this version has one for each attempt."""
    mine, older = LIVES[life](), upgraded(life)
    written = [identity(entry) for entry in mine.status.events]
    filled = [identity(entry) for entry in older.status.events]
    if life != UNRECORDED:
        assert set(filled) <= set(written)
    assert {reason for reason, *_ in filled} == {reason for reason, *_ in written}
    assert len(filled) == len(set(filled))


@pytest.mark.parametrize("is_pruned", [False, True])
@pytest.mark.parametrize("life", [life for life in LIVES if life not in {"succeeded", "failed"}])
def test_the_rest_of_the_life_repeats_no_event(life: str, is_pruned: bool) -> None:
    """is_pruned: the CRD of the previous version drops the fields at each write."""
    world = upgraded(life)

    def settle() -> None:
        for _ in range(5):
            world.step()
            if is_pruned:
                without = [
                    item.replace(attempt=None, key=None, seq=None) for item in world.status.events
                ]
                status = world.status.replace(events=without)
                world.finetune = with_event_fields(world.finetune.replace(status=status))

    settle()
    if world.finetune.spec.suspend:
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=False))
        settle()
    if life == "checking the data":
        world.end_pod("prepare", 0, 0, prepared())
        settle()
    world.now = world.now.replace(hour=13)
    settle()
    if world.status.state != "cancelled":
        run(world, world.status.attempts[-1].number, resumed_from_step=25, **EPOCHS)
        settle()
        succeed(world)
        settle()
        assert world.status.state == "succeeded"
    counts = Counter(identity(entry) for entry in world.status.events)
    assert set(counts.values()) == {1} or is_pruned
    reasons = Counter(entry.reason for entry in world.status.events)
    assert all(reasons[reason] <= 1 for reason in ONCE)
    epochs = [entry.key for entry in world.status.events if entry.reason == "EpochCompleted"]
    assert epochs == sorted(set(epochs), key=str)


def test_a_finetune_of_this_version_is_not_changed() -> None:
    world = running()
    assert with_event_fields(world.finetune) is world.finetune
