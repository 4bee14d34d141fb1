"""Decisions during the whole life of a FineTune, without a cluster."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from finetune_api import names
from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics
from finetune_api.training_files import TrainingFileCounts
from finetune_operator import messages
from finetune_operator.core.decide import decide
from finetune_operator.core.observed import ForeignObject
from finetune_operator.core.plan import Create
from finetune_operator.settings import PodNetwork
from tests.support.objects import (
    World,
    a_finetune,
    a_settings,
    failed,
    prepared,
    progress,
    trained,
)


def kinds(world: World) -> list[str]:
    return [manifest["kind"] for manifest in world.created]


def test_a_default_output_that_is_too_long_for_results_is_refused() -> None:
    world = World(a_finetune(output=None), a_settings(output=f"s3://bucket/{'ü' * 260}"))
    world.settle()
    assert world.status.error.code == Reason.INVALID_SPEC
    assert "532 bytes" in world.status.error.message
    assert not world.jobs


@pytest.mark.parametrize(("characters", "is_refused"), [(161, False), (162, True)])
def test_a_model_name_that_no_object_can_have_is_refused_before_the_training(
    characters: int, is_refused: bool
) -> None:
    """`ada:ft-` + 161 + `:` + 64 + `-2026-11-21-12-00-00`."""
    world = World(a_finetune(suffix="x" * 64), a_settings(organization="o" * characters))
    world.settle()
    if is_refused:
        error = world.status.error
        assert (error.code, error.param) == (Reason.INVALID_SPEC, "suffix")
        assert "254 characters; at most 253" in error.message
    assert bool(world.jobs) != is_refused


def test_the_happy_path_takes_four_status_writes_and_six_events() -> None:
    world = World().until_running()
    assert world.status.state == "running"
    world.end_pod("a1", 0, 0, trained())
    world.end_pod("a1", 1, 0, None)
    world.settle()
    assert world.status.state == "succeeded"
    assert world.status_writes == 4
    assert kinds(world) == ["Job", "Job", "Model"]
    assert len(world.services) == 1
    result = trained().trained
    assert result is not None and result.epochs is not None
    assert world.messages() == [
        event.message
        for event in (
            messages.created("tone"),
            messages.base_model_loaded("ada"),
            messages.STARTED,
            *(messages.epoch_completed(epoch, 2) for epoch in result.epochs),
            messages.model_uploaded(result.fine_tuned_model),
            messages.results_uploaded(result.result_files[0]),
            messages.SUCCEEDED,
        )
    ]
    conditions = {item.type: item.status for item in world.status.conditions}
    assert conditions["Succeeded"] == conditions["Ready"] == conditions["Validated"] == "True"
    assert conditions["Reconciling"] == conditions["Failed"] == conditions["Stalled"] == "False"


def test_a_network_policy_is_created_before_any_pod_if_the_chart_enables_it() -> None:
    world = World(settings=a_settings().replace(pod_network=PodNetwork())).until_running()
    assert kinds(world) == ["NetworkPolicy", "Job", "Job"]
    policy = world.created[0]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]


def test_nothing_is_written_while_nothing_happens() -> None:
    world = World().until_running()
    before = world.status_writes
    for _ in range(5):
        world.step()
    assert world.status_writes == before


def test_progress_is_written_at_most_every_ten_seconds_but_an_epoch_immediately() -> None:
    world = World().until_running()
    before = world.status_writes
    for step in range(11, 31):  # one second each
        world.progress = progress(step=step)
        world.step()
    assert world.status_writes - before == 2
    epoch = {"epoch": 1, "step": 25, "training_loss": 2.0}
    world.progress = progress(step=31, completed_epochs=[epoch])
    world.step()
    assert world.status_writes - before == 3
    completed = EpochMetrics.model_validate(epoch)
    assert world.messages()[-1] == messages.epoch_completed(completed, 2).message


def test_a_continued_model_is_measured_before_its_first_step() -> None:
    before = {"epoch": 0, "step": 0, "validation_loss": 2.98, "validation_sequence_accuracy": 0.5}
    measured = EpochMetrics.model_validate(before)
    message = messages.base_model_measured(measured).message
    world = World().until_running()
    world.progress = progress(before=before)
    world.step()
    assert world.messages()[-1] == message
    done = trained()
    assert done.trained is not None
    world.end_pod("a1", 0, 0, done.replace(trained=done.trained.replace(before=measured)))
    world.end_pod("a1", 1, 0, None)
    world.settle()
    assert world.messages().count(message) == 1
    (model,) = (made for made in world.created if made["kind"] == "Model")
    assert model["spec"]["metrics"] == {"trainingLoss": 1.25}
    assert model["spec"]["metricsBefore"] == {
        "validationLoss": 2.98,
        "validationSequenceAccuracy": 0.5,
    }


@pytest.mark.parametrize(("first", "is_warned"), [(0.7, True), (1.2, False), (None, False)])
def test_a_loss_that_ended_above_its_first_step_is_a_warning(
    first: float | None, is_warned: bool
) -> None:
    world = World().until_running()
    done = trained()
    assert done.trained is not None
    world.end_pod("a1", 0, 0, done.replace(trained=done.trained.replace(first_loss=first)))
    world.end_pod("a1", 1, 0, None)
    world.settle()
    assert world.status.state == "succeeded"
    warnings = [event for event in world.status.events if event.level == "warning"]
    assert [event.reason for event in warnings] == ["Diverged"] * is_warned
    for event in warnings:
        assert event.message == messages.diverged(0.7, 1.25).message


def test_the_condition_validated_has_no_message_on_the_model() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    world.end_pod("a1", 1, 0, None)
    world.settle()
    said = {item.type: (item.status, item.message) for item in world.status.conditions}
    assert said["Validated"] == ("True", "")
    ready = messages.model_ready("ada:ft-team:tone-2026-11-21-12-00-00")
    assert said["Succeeded"] == ("True", ready.message)


def test_invalid_data_fails_at_once_and_makes_no_train_job() -> None:
    world = World()
    world.settle()
    finding = "line 17, column 3: not valid JSON"
    outcome = failed(Reason.INVALID_DATA, f"trainingFile: {finding}", lines=[finding])
    world.end_pod("prepare", 0, names.EXIT_USER, outcome)
    world.settle()
    assert world.status.state == "failed"
    assert world.status.error.code == "InvalidData"
    assert world.status.error.lines == [finding]
    assert "line 17" in world.status.message
    assert kinds(world) == ["Job"]
    assert world.messages()[-1] == messages.failed(world.status.error).message


TWO_FILES = [{"uri": "s3://bucket/a.jsonl", "weight": 3}, {"uri": "s3://bucket/b", "weight": 1}]


def test_the_sizes_of_several_training_files_are_in_the_status() -> None:
    world = World(a_finetune(trainingFile=None, trainingFiles=TWO_FILES))
    world.settle()
    counts = [TrainingFileCounts(examples=n, epoch_examples=75 * n) for n in (1, 2)]
    world.end_pod("prepare", 0, 0, prepared(training_files=counts))
    world.settle()
    assert world.status.resolved.training_files == counts
    assert kinds(world) == ["Job", "Job"]


def test_an_older_prepare_image_that_read_only_the_first_of_several_files_is_refused() -> None:
    world = World(a_finetune(trainingFile=None, trainingFiles=TWO_FILES))
    world.settle()
    world.end_pod("prepare", 0, 0, prepared())
    world.settle()
    assert world.status.error == messages.one_training_file("registry/prepare:1")
    assert kinds(world) == ["Job"]


def test_a_crashed_prepare_pod_is_retried_by_its_job() -> None:
    world = World()
    world.settle()
    world.end_pod("prepare", 0, names.EXIT_UNAVAILABLE, failed(Reason.S3_UNAVAILABLE))
    world.settle()
    error = ErrorInfo(code=Reason.S3_UNAVAILABLE, message="it broke")
    assert world.status.state == "pending"
    assert world.status.message == messages.checking_data_again(error).message
    world.fail_job("prepare")
    world.settle()
    assert world.status.state == "failed"
    assert world.status.error.code == "S3Unavailable"


def test_a_killed_rank_restarts_all_pods_once() -> None:
    world = World().until_running()
    crash = failed(
        Reason.RANK_CRASHED, "rank 1 was killed by signal 9 (SIGKILL)", rank=1, exit_code=137
    )
    world.end_pod("a1", 1, names.EXIT_CRASH, crash)
    world.end_pod("a1", 0, names.EXIT_CRASH, failed(Reason.RANK_CRASHED, "peer lost", exit_code=1))
    world.progress = None
    before = world.status_writes
    world.settle()
    assert world.status.state == "pending"
    assert world.status.reason == "Restarting"
    assert world.deleted == [name for name in world.deleted if name.endswith("a1")] != []
    first, second = world.status.attempts
    assert (first.reason, first.rank, first.exit_code, first.counted) == (
        "RankCrashed",
        1,
        137,
        True,
    )
    assert second.ended_at is None
    world.ready_pods("a2")
    world.progress = progress(attempt=2, resumed_from_step=25)
    world.settle()
    assert world.status.state == "running"
    assert world.status_writes - before == 2
    restarted = messages.restarted(2, 25, "rank 1 was killed by signal 9 (SIGKILL)")
    assert world.messages()[-1] == restarted.message


@pytest.mark.parametrize("end", ["crash", "success"])
def test_an_attempt_that_ends_unobserved_records_the_step_it_resumed_from(end: str) -> None:
    world = World().until_running()
    crash = failed(Reason.RANK_CRASHED, "rank 1 was killed", rank=1, exit_code=137)
    world.end_pod("a1", 1, names.EXIT_CRASH, crash)
    world.progress = None
    world.settle()
    outcome = trained() if end == "success" else crash
    code = names.EXIT_OK if end == "success" else names.EXIT_CRASH
    world.end_pod("a2", 0, code, outcome.replace(resumed_from_step=25))
    world.settle()
    assert world.status.attempts[1].resumed_from_step == 25
    restarts = [event.message for event in world.status.events if event.reason == "Restarted"]
    assert restarts == [messages.restarted(2, 25, "rank 1 was killed").message]


def test_an_echo_waits_for_the_root_cause() -> None:
    world = World().until_running()
    world.now = datetime(2026, 11, 21, 12, 5, 1, tzinfo=UTC)
    echo = failed(Reason.RANK_CRASHED, "rank 0 lost the connection", rank=0, exit_code=1)
    world.end_pod("a1", 0, names.EXIT_CRASH, echo)
    assert world.step().requeue_after == 2
    assert world.status.state == "running"
    crash = failed(Reason.RANK_CRASHED, "rank 1 was killed", rank=1, exit_code=137)
    world.end_pod("a1", 1, names.EXIT_CRASH, crash)
    world.settle()
    assert (world.status.attempts[0].rank, len(world.status.attempts)) == (1, 2)


def test_an_echo_counts_after_ten_seconds_without_a_root_cause() -> None:
    world = World().until_running()
    world.now = datetime(2026, 11, 21, 12, 5, 1, tzinfo=UTC)
    echo = failed(Reason.RANK_CRASHED, "rank 0 lost the connection", rank=0, exit_code=1)
    world.end_pod("a1", 0, names.EXIT_CRASH, echo)
    world.step()
    assert len(world.status.attempts) == 1
    world.now = datetime(2026, 11, 21, 12, 5, 10, tzinfo=UTC)
    world.settle()
    assert (world.status.attempts[0].rank, len(world.status.attempts)) == (0, 2)


def test_max_restarts_end_it_with_the_last_cause() -> None:
    world = World(a_finetune(maxRestarts=1)).until_training()
    for attempt in ("a1", "a2"):
        world.end_pod(attempt, 0, 139, "Segmentation fault")
        world.settle()
    assert world.status.state == "failed"
    assert world.status.error.code == "RankCrashed"
    assert "SIGSEGV" in world.status.error.message
    assert messages.restarts_spent(1) in world.status.error.message
    assert world.status.error.log == ["Segmentation fault"]


def test_a_lost_pod_is_not_counted() -> None:
    world = World(a_finetune(maxRestarts=0)).until_running()
    world.pod("a1", 1)["status"] = {
        "phase": "Failed",
        "message": "node drained",
        "conditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    world.settle()
    assert world.status.state == "pending"
    assert world.status.attempts[0].reason == "PodLost"  # a condition without a reason
    assert world.status.attempts[0].counted is False


def test_a_users_error_in_training_is_never_retried() -> None:
    world = World().until_training()
    world.end_pod("a1", 1, 1, failed(Reason.RANK_CRASHED, "peer lost", exit_code=137))
    world.end_pod("a1", 0, names.EXIT_USER, failed(Reason.BASE_MODEL_INVALID, "no weights"))
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", "BaseModelInvalid")


def test_a_terminal_state_stays_when_every_child_is_gone() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    world.jobs.clear()
    world.services.clear()
    status, made = world.status, len(world.created)
    world.settle()
    assert world.status == status
    assert len(world.created) == made


def test_a_deleted_job_of_a_running_attempt_never_trains_again_by_itself() -> None:
    world = World().until_running()
    world.remove_job(world.job("a1"))
    world.settle()
    assert (world.status.state, world.status.reason) == ("pending", "JobDeleted")
    world.end_pod("lookup", 0, names.EXIT_USER, failed(Reason.DATA_NOT_FOUND))
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", "JobDeleted")
    assert not any(name.endswith("-a1") for name in world.jobs)


@pytest.mark.parametrize("dies_at", range(6))
@pytest.mark.parametrize("writes", [False, True])
def test_a_crash_of_the_operator_between_act_and_write_changes_nothing(
    dies_at: int, writes: bool
) -> None:
    """The status write or the actions of each reconcile in turn are lost."""

    def live(dies: bool) -> World:
        world, count = World(), 0

        def step() -> None:
            nonlocal count
            lost = dies and count == dies_at
            count += 1
            world.step(acts=not lost or not writes, writes=not lost)

        step(), step(), step()
        world.end_pod("prepare", 0, 0, prepared())
        step(), step(), step()
        world.ready_pods("a1")
        step(), step()
        world.end_pod("a1", 0, 0, trained())
        step(), step()
        return world

    calm, crashed = live(False), live(True)
    assert crashed.status.state == "succeeded"
    assert sorted(kinds(calm)) == ["Job", "Job", "Model"]
    made = {manifest["metadata"]["name"] for manifest in crashed.created}
    assert made == {manifest["metadata"]["name"] for manifest in calm.created}
    assert len(crashed.status.attempts) == 1


def test_a_later_change_of_the_chart_does_not_affect_a_running_finetune() -> None:
    world = World().until_training()
    world.settings = a_settings(models=[], output="s3://other/place")
    world.end_pod("a1", 0, 1, "boom")
    world.settle()
    task = world.created[-1]["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
    assert "s3://bucket/out" in task
    assert "s3://bucket/models/ada" in task


def test_the_task_of_a_prepare_job_wins_if_the_status_write_was_lost() -> None:
    world = World()
    world.step(writes=False)
    world.settings = a_settings(output="s3://other/place")
    world.settle()
    assert world.status.resolved.output == "s3://bucket/out"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"model": "gpt5"}, messages.unknown_model("gpt5", "team", "ada")),
        ({"runtime": "tpu"}, messages.unknown_runtime("tpu", "nvidia, cpu")),
        (
            {"runtime": "cpu", "resources": {"gpusPerNode": 1}},
            messages.runtime_without_gpus("cpu"),
        ),
    ],
)
def test_a_spec_that_can_never_work_fails_before_any_job(
    spec: dict[str, Any], error: ErrorInfo
) -> None:
    world = World(a_finetune(**spec))
    world.settle()
    assert (world.status.state, world.status.error) == ("failed", error)
    assert world.created == []


def test_an_unschedulable_pod_is_explained() -> None:
    world = World().until_training()
    world.pod("a1", 0)["status"] = {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            }
        ],
    }
    world.settle()
    assert (world.status.state, world.status.reason) == ("pending", "Unschedulable")
    lacking = messages.nodes_lack("3", "nvidia.com/gpu")
    assert world.status.message == messages.unschedulable(1, 2, lacking).message


def test_cancel_is_final_and_removes_the_jobs() -> None:
    world = World().until_running()
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    assert world.status.state == "cancelled"
    assert world.jobs == {}
    assert world.messages()[-1] == messages.CANCELLED.message


def test_a_dry_run_stops_after_the_check() -> None:
    world = World(a_finetune(dryRun=True)).until_training()
    assert (world.status.state, world.status.reason) == ("succeeded", "DryRun")
    memory = messages.memory_estimate(0.5, 1, None, None)
    assert world.status.message == messages.dry_run_passed(100, 5000, 50, 4, memory).message
    assert kinds(world) == ["Job"]


def test_a_queue_starts_the_job_suspended_with_kueues_label() -> None:
    world = World(a_finetune(queueName="gpus")).until_training()
    plan = world.created[-1]
    assert plan["spec"]["suspend"] is True
    assert plan["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert world.status.stage == "queued"


def test_actions_of_a_restart_create_before_anything_is_deleted() -> None:
    """A crash in between must not look like a Job that a user deleted."""
    world = World().until_running()
    world.end_pod("a1", 0, 1, "boom")
    plan = world.step()
    assert all(not hasattr(action, "uid") for action in plan.actions)
    assert isinstance(plan.actions[0], Create)


def test_suspend_ends_the_attempt_and_resume_continues_uncounted() -> None:
    world = World().until_running()
    for round_ in (1, 2):
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=True))
        world.settle()
        assert (world.status.state, world.status.reason) == ("pending", "Suspended")
        assert world.jobs.keys() == {world.job("prepare")}
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=False))
        world.progress = None
        world.settle()
        assert world.status.attempts[-1].number == round_ + 1
        world.ready_pods(f"a{round_ + 1}")
        world.progress = progress(attempt=round_ + 1, resumed_from_step=10)
        world.settle()
        assert world.status.state == "running"
    assert [attempt.counted for attempt in world.status.attempts] == [None, None, None]
    reasons = [event.reason for event in world.status.events]
    assert [reasons.count(name) for name in ("Suspended", "Resumed", "Restarted")] == [2, 2, 0]


def test_a_finetune_that_is_created_suspended_requests_no_gpu() -> None:
    world = World(a_finetune(suspend=True)).until_training()
    assert kinds(world) == ["Job"]
    assert world.status.message == messages.SUSPENDED_BY_USER.message


def test_the_cause_of_an_attempts_end_survives_a_crash_of_the_operator() -> None:
    world = World().until_running()
    world.end_pod("a1", 1, 137, "killed")
    world.step(writes=False)  # a2 is created, the status is not written
    world.settle()
    first, second = world.status.attempts
    assert (first.reason, second.ended_at) == ("RankCrashed", None)
    assert "SIGKILL" in first.message
    assert world.deleted == [first_job for first_job in world.deleted if first_job.endswith("a1")]


def test_a_model_that_is_published_while_the_next_attempt_starts_counts() -> None:
    world = World().until_running()
    world.pod("a1", 1)["metadata"]["deletionTimestamp"] = "2026-11-21T12:05:00Z"
    world.step()
    assert world.status.attempts[-1].number == 2
    world.end_pod("a1", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"
    first, second = world.status.attempts
    assert (first.reason, second.reason) == ("Succeeded", "Cancelled")
    assert [name for name in world.jobs if "-a" in name[-3:]] == [world.job("a1")]


def test_an_attempt_without_a_record_is_not_reported_as_running() -> None:
    world = World().until_running()
    world.end_pod("a1", 1, 137, "")
    world.step(writes=False)  # a2 is created; in the status a1 still runs
    world.step()
    assert (world.status.state, len(world.status.attempts)) == ("pending", 2)


# --- a name that is taken -------------------------------------------------------------------------


def test_a_taken_model_name_fails_with_its_owner_and_the_location_of_the_files() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 0, trained())
    taken = ForeignObject("Model", "ada-ft-team-tone-2026-11-21-12-00-00", "other")
    status = decide(replace(world.observe(), foreign=(taken,)), world.settings, world.now).status
    assert (status.state, status.error.code) == ("failed", "ForeignObject")
    assert str(taken) in status.error.message
    assert taken.to_command("team") in status.error.hint
    assert status.model_uri in status.error.message
    assert status.model_uri == trained().trained.model_uri
    assert status.fine_tuned_model is None
    assert [item.reason for item in status.attempts if item.ended_at] == ["ForeignObject"]


def test_a_finetune_without_a_recorded_dataset_fails_with_a_message() -> None:
    world = World().until_running()
    status = world.status
    old = status.replace(resolved=status.resolved.replace(dataset=None))
    world.finetune = world.finetune.replace(status=old)
    world.end_pod("a1", 1, 137, "")
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", Reason.INTERNAL)
    assert world.status.error == messages.DATASET_NOT_RECORDED
