"""The revision of the base model goes from the prepare Job to the pods of every attempt."""

import json

from finetune_api import names
from finetune_api.names import Reason, State
from finetune_api.outcome import Prepared
from tests.support import previous
from tests.support.objects import World, failed, prepared

COMMIT = "c" * 40


def train(world: World, attempt: int) -> str | None:
    """Start an attempt and return the revision in its task."""
    world.settle()
    world.admit(f"a{attempt}")
    world.ready_pods(f"a{attempt}")
    world.settle()
    found: str | None = json.loads(world.task())["base"].get("revision")
    return found


def test_all_attempts_get_the_revision_that_the_prepare_job_resolved() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 0, prepared(base_revision=COMMIT))
    assert train(world, 1) == COMMIT
    assert world.status.resolved is not None
    assert world.status.resolved.base.revision == COMMIT
    world.end_pod("a1", 0, 1, failed(Reason.RANK_CRASHED))
    assert train(world, 2) == COMMIT


def test_a_prepare_image_of_an_earlier_version_pins_nothing() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 0, prepared())
    assert train(world, 1) is None


def test_a_changed_base_model_is_an_error_of_the_user() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 0, prepared(base_revision=COMMIT))
    train(world, 1)
    world.end_pod("a1", 0, names.EXIT_USER, failed(Reason.BASE_MODEL_CHANGED))
    world.settle()
    assert world.status.state == State.FAILED
    assert world.status.error is not None
    assert world.status.error.code == Reason.BASE_MODEL_CHANGED


def test_the_previous_version_ignores_the_revision() -> None:
    outcome = prepared(base_revision=COMMIT).prepared
    assert outcome is not None
    text = previous.parse("finetune_api.outcome:Prepared", outcome.to_json())
    assert Prepared.model_validate_json(text) == outcome.replace(base_revision=None)
