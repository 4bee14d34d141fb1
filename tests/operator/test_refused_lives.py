"""Any request of any life is refused for some time: it is explained, and then nothing is lost."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api import names
from finetune_api.names import Reason
from tests.operator.test_refused_plan import StrictWorld
from tests.support.objects import failed, prepared, trained

ROUNDS = 9
REQUESTS = [
    ("create", "Job", "-prepare"),
    ("create", "Job", "-a1"),
    ("create", "Job", "-a2"),
    ("create", "Service", "-a1"),
    ("create", "Service", "-a2"),
    ("create", "Model", ""),
    ("delete", "Job", "-a1"),
    ("delete", "Job", "-prepare"),
]


def step_until_quiet(world: StrictWorld) -> None:
    for _ in range(ROUNDS):
        before = world.finetune, len(world.jobs), len(world.services)
        world.step()
        if before == (world.finetune, len(world.jobs), len(world.services)):
            return


def go_on(world: StrictWorld) -> None:
    """The pods that exist advance by one step, the first attempt crashes."""
    for name in list(world.jobs):
        if name.endswith("-prepare"):
            world.end_pod("-prepare", 0, 0, prepared())
            world.jobs[name]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        elif name.endswith("-a1"):
            world.end_pod("-a1", 1, 1, failed("RankCrashed"))
            world.fail_job("-a1")
        else:
            world.end_pod("-a2", 1, 0, None)
            world.end_pod("-a2", 0, 0, trained())
            world.jobs[name]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}


@pytest.mark.slow
@settings(max_examples=30)
@given(
    refused=st.sets(st.sampled_from(REQUESTS)),
    has_one_place=st.booleans(),
    recovers_after=st.integers(0, 3),
)
def test_every_refusal_is_explained_and_every_life_succeeds(
    refused: set[tuple[str, str, str]], has_one_place: bool, recovers_after: int
) -> None:
    world = StrictWorld()
    is_over = False

    def refuses(verb: str, kind: str, name: str) -> bool:
        is_full = has_one_place and (verb, kind) == ("create", "Job") and bool(world.jobs)
        if is_full and name not in world.jobs:
            return True
        hit = any((verb, kind) == item[:2] and name.endswith(item[2]) for item in refused)
        return hit and not is_over

    world.refuses = refuses
    for round_number in range(ROUNDS):
        is_over = round_number >= recovers_after
        step_until_quiet(world)
        status = world.status
        assert status.started_at
        if status.state == "pending" and world.step().is_refused:
            assert status.reason in names.REFUSAL_REASONS | {Reason.SUSPENDED}
            assert "cannot be" in status.message
        go_on(world)
        world.now += timedelta(seconds=20)
    assert world.status.state == "succeeded", world.status.message
    assert [item.reason for item in world.status.attempts] == ["RankCrashed", "Succeeded"]
    reasons = [event.reason for event in world.status.events]
    for once in ("Created", "ModelUploaded", "Succeeded"):
        assert reasons.count(once) == 1, reasons
    models = [item for item in world.created if item["kind"] == "Model"]
    assert len(models) == 1


@pytest.mark.parametrize("place", [True, False])
def test_the_life_of_these_tests_succeeds_without_refusals(place: bool) -> None:
    test_every_refusal_is_explained_and_every_life_succeeds.hypothesis.inner_test(set(), place, 0)
