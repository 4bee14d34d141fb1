"""Results that are lost with the pods, Jobs that users delete, and results of others."""

from typing import Any

import pytest

from finetune_api import names
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import Reason
from finetune_api.outcome import Outcome
from finetune_api.wire import JsonObject
from finetune_operator.build.lookup_job import PROGRAM, build_lookup_job
from finetune_operator.core.observed import own_jobs
from tests.support.objects import (
    World,
    a_finetune,
    a_settings,
    failed,
    prepared,
    secret_keys,
    trained,
)

WORDLESS: dict[str, str | Outcome] = {
    "empty": "",
    "cut": '{"kind": "outcome", "trained": {"fineTunedModel": "ada',
    "a log": "Traceback (most recent call last):\nValueError",
    "another result": Outcome(),
}


def with_trained(**changes: Any) -> Outcome:
    found = trained().trained
    assert found is not None
    return Outcome(trained=found.replace(**changes))


def end_all(world: World, ending: str, word: str | Outcome) -> None:
    for index in range(len(world.pods[world.job(ending)])):
        world.end_pod(ending, index, 0, word if index == 0 else None)
    world.progress = None


def trains(world: World) -> list[str]:
    return sorted(name[-2:] for name in world.jobs if "-a" in name)


# --- train Jobs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", WORDLESS.values(), ids=list(WORDLESS))
def test_an_attempt_without_a_readable_word_is_followed_by_one_that_finds_the_model(
    word: str | Outcome,
) -> None:
    world = World(a_finetune(maxRestarts=0)).until_running()
    end_all(world, "a1", word)
    world.settle()
    assert trains(world) == ["a2"]
    (first, _) = world.status.attempts
    assert (first.reason, first.counted) == (Reason.RESULT_LOST, False)
    end_all(world, "a2", trained())
    world.settle()
    assert world.status.state == "succeeded"
    assert [item.reason for item in world.status.attempts] == ["ResultLost", "Succeeded"]


def test_pods_that_are_gone_count_after_a_moment_in_which_a_list_may_be_old() -> None:
    world = World().until_running()
    end_all(world, "a1", trained())
    world.pods[world.job("a1")] = []
    world.step()
    assert trains(world) == ["a1"]
    assert world.step().requeue_after == 2
    for _ in range(10):
        world.step()
    assert trains(world) == ["a2"]


def test_three_losses_in_a_row_fail_and_a_crash_between_them_starts_the_row_again() -> None:
    world = World().until_running()
    for number in (1, 2):
        end_all(world, f"a{number}", "")
        world.settle()
    world.end_pod("a3", 1, 1, "boom")
    world.settle()
    for number in (4, 5):
        end_all(world, f"a{number}", "")
        world.settle()
    assert trains(world) == ["a6"]
    end_all(world, "a6", "")
    world.settle()
    assert world.status.error.code == Reason.RESULT_LOST
    assert "3 lost results in a row" in world.status.error.message


def test_a_sidecar_does_not_hide_a_lost_word() -> None:
    world = World().until_running()
    for index in (0, 1):
        world.end_pod("a1", index, 0, "", has_sidecar=True)
    world.settle()
    assert trains(world) == ["a2"]


# --- prepare Jobs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [*WORDLESS.values(), None], ids=[*WORDLESS, "no pods"])
def test_the_data_is_checked_again_three_times(word: str | Outcome | None) -> None:
    world = World()
    world.settle()
    uids = set()
    for _ in range(4):
        name = world.job("prepare")
        uids.add(world.jobs[name]["metadata"]["uid"])
        world.end_pod("prepare", 0, 0, word)
        if word is None:
            world.pods[name] = []
        for _ in range(15):
            world.step()
    assert len(uids) == 4
    assert world.status.error.code == Reason.RESULT_LOST
    events = [item for item in world.status.events if item.level == "warning"]
    assert len({item.key for item in events}) == 4


def test_a_check_that_was_repeated_goes_on() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, 0, "")
    for _ in range(3):
        world.step()
    world.end_pod("prepare", 0, 0, prepared())
    world.settle()
    assert trains(world) == ["a1"]


# --- deleted Jobs ---------------------------------------------------------------------------------


def until_lookup(**spec: Any) -> World:
    world = World(a_finetune(**spec)).until_running()
    world.remove_job(world.job("a1"))
    world.progress = None
    world.settle()
    assert world.job("lookup")
    return world


def test_a_job_that_was_deleted_after_it_published_succeeds() -> None:
    world = until_lookup()
    assert (world.status.state, world.status.reason) == ("pending", Reason.JOB_DELETED)
    world.end_pod("lookup", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"
    assert [item.reason for item in world.status.attempts] == ["Succeeded"]
    assert [made["kind"] for made in world.created][-1] == "Model"
    assert trains(world) == []


@pytest.mark.parametrize(
    ("code", "word", "told"),
    [
        (names.EXIT_USER, failed(Reason.DATA_NOT_FOUND), "no model was published"),
        (names.EXIT_USER, failed(Reason.S3_ACCESS_DENIED, "S3 said no"), "S3 said no"),
        (names.EXIT_USER, "the prepare image is of an earlier version", "of an earlier version"),
        (1, "No module named finetune_data.lookup", "No module named"),
        (137, "", "SIGKILL"),
    ],
)
def test_a_lookup_that_finds_no_model_for_good_fails_with_its_words(
    code: int, word: str | Outcome, told: str
) -> None:
    world = until_lookup()
    world.end_pod("lookup", 0, code, word)
    world.fail_job("lookup")
    world.settle()
    assert world.status.error.code == Reason.JOB_DELETED
    assert told in world.status.error.message
    assert "the Job of attempt 1 was deleted" in world.status.error.message
    assert trains(world) == []


def test_the_result_of_a_lookup_can_be_lost_too() -> None:
    world = until_lookup()
    for _ in range(4):
        world.end_pod("lookup", 0, 0, "")
        for _ in range(3):
            world.step()
    assert world.status.error.code == Reason.JOB_DELETED
    assert "lookup Job succeeded, but its result is lost" in world.status.error.message


def test_a_job_of_the_deleted_attempt_that_appears_again_is_deleted() -> None:
    world = until_lookup()
    manifest = next(made for made in world.created if made["metadata"]["name"].endswith("-a1"))
    world.add_job(manifest)
    world.settle()
    assert trains(world) == []
    assert world.status.reason == Reason.JOB_DELETED


def test_a_suspended_fine_tune_needs_no_lookup() -> None:
    world = World().until_running()
    spec = world.finetune.spec
    world.finetune = world.finetune.replace(spec=spec.replace(suspend=True))
    world.remove_job(world.job("a1"))
    world.settle()
    assert world.status.reason == Reason.SUSPENDED
    assert not any(name.endswith("lookup") for name in world.jobs)
    world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    assert trains(world) == ["a2"]


def test_the_lookup_runs_in_the_image_of_the_chart_with_the_credentials_of_the_fine_tune() -> None:
    world = World(a_finetune(storage={"secretName": "mine"}), a_settings()).until_training()
    newer = a_settings(prepareImage="registry/prepare:2")
    job = build_lookup_job(world.finetune, world.status.resolved, newer)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry/prepare:2"
    assert secret_keys(container)["AWS_ACCESS_KEY_ID"] == ("mine", False)
    assert container["command"] == ["python", "-c", PROGRAM]


# --- results and Jobs of others -------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"model_uri": "s3://bucket/out/other/secret-99999999/model"},
        {"model_uri": "s3://bucket/out/team/tone-11111111/model/.."},
        {"result_files": ["s3://bucket/out/other/results.csv"]},
        {"fine_tuned_model": "gpt5:ft-team-2026-11-21-12-00-00"},
    ],
)
def test_a_word_with_the_addresses_of_others_is_no_result(changes: dict[str, Any]) -> None:
    world = World().until_running()
    end_all(world, "a1", with_trained(**changes))
    world.settle()
    assert world.status.state == "pending"
    assert world.status.attempts[0].reason == Reason.RESULT_LOST
    assert "not this FineTune's" in world.status.attempts[0].message
    assert [made["kind"] for made in world.created].count("Model") == 0


def test_an_address_that_an_older_image_has_cut_is_ours() -> None:
    found = trained().trained
    assert found is not None
    world = World().until_running()
    end_all(world, "a1", with_trained(result_files=[found.result_files[0][:30] + "…"]))
    world.settle()
    assert world.status.state == "succeeded"
    assert world.status.result_files == found.result_files


def forged(world: World, name: str, **labels: str) -> JsonObject:
    """A Job with our owner and labels, which ends with a model."""
    job = next(made for made in world.created if made["metadata"]["name"].endswith("-a1"))
    meta = {**job["metadata"], "name": name, "labels": {**job["metadata"]["labels"], **labels}}
    world.add_job({**job, "metadata": meta})
    ending = name[-6:]
    world.end_pod(ending, 0, 0, trained())
    return world.jobs[name]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("evil-job", {}),
        ("evil-job", {names.LABEL_ATTEMPT: "2"}),
        ("ft-tone-11111111-a7", {names.LABEL_ATTEMPT: "7"}),
        ("ft-tone-11111111-a2", {names.LABEL_ATTEMPT: "1"}),
        ("ft-tone-11111111-a01", {names.LABEL_ATTEMPT: "01"}),
        ("evil-lookup", {names.LABEL_COMPONENT: names.COMPONENT_LOOKUP}),
        ("evil-check", {names.LABEL_COMPONENT: names.COMPONENT_PREPARE}),
    ],
)
@pytest.mark.parametrize("ends", ["succeeded", "cancelled"])
def test_a_forged_job_neither_decides_nor_is_deleted(
    name: str, labels: dict[str, str], ends: str
) -> None:
    world = World().until_running()
    forged(world, name, **labels)
    world.settle()
    assert world.status.state == "running"
    if ends == "succeeded":
        end_all(world, "11-a1", trained())
    else:
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    assert world.status.state == ends
    assert name in world.jobs
    assert name not in world.deleted


def test_a_job_of_another_owner_is_not_ours() -> None:
    world = World().until_running()
    jobs = world.observe().jobs
    assert len(jobs) == 2
    other = world.finetune.metadata.replace(uid="another")
    assert own_jobs(world.finetune.replace(metadata=other, status=FineTuneStatus()), jobs) == ()
