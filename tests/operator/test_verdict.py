"""The ends of attempts: a closed set of reasons, with place, cause, and hint."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api import names
from finetune_api.finetune_status import Attempt, ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import Failure, Outcome
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.core.attempts.retry import ATTEMPTS_AT_MOST, may_retry
from finetune_operator.core.observed import Job
from finetune_operator.core.verdict import Verdict, judge
from tests.support.objects import World, a_finetune, failed, progress


def disrupted(cause: str, **status: Any) -> JsonObject:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": cause,
        "message": "as the control plane says",
    }
    return {"phase": "Failed", "conditions": [condition], **status}


def ended(code: int, reason: str = "Error", message: str = "") -> JsonObject:
    state = {"terminated": {"exitCode": code, "reason": reason, "message": message}}
    return {"phase": "Failed", "containerStatuses": [{"state": state}]}


def said(outcome: Outcome, code: int) -> JsonObject:
    return ended(code, message=outcome.to_termination_message())


def a_job(*pods: JsonObject, deleted: bool = False) -> Job:
    """The Job of an attempt, with pods of these statuses on different nodes."""
    labels = {"finetune.dev/component": "train", "finetune.dev/attempt": "1"}
    meta = {"name": "ft-a1", "uid": "j", "labels": labels}
    raw = [
        {
            "metadata": {
                "name": f"ft-a1-{index}",
                "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(index)},
                "ownerReferences": [{"uid": "j", "controller": True}],
                **({"deletionTimestamp": "2026-11-21T12:00:00Z"} if deleted else {}),
            },
            "spec": {
                "nodeName": f"node-{index}",
                "containers": [{"resources": {"limits": {"memory": "150Mi"}}}],
            },
            "status": status,
        }
        for index, status in enumerate(pods)
    ]
    spec = {"template": {"spec": {"containers": [{"name": "main"}]}}}
    return Job.parse({"metadata": meta, "spec": spec}, raw)


TABLE = {
    "preempted by the scheduler": (disrupted("PreemptionByScheduler"), Reason.PREEMPTED, False),
    "node tainted": (disrupted("DeletionByTaintManager"), Reason.NODE_LOST, False),
    "node gone": (disrupted("DeletionByPodGC"), Reason.NODE_LOST, False),
    "drained": (disrupted("EvictionByEvictionAPI"), Reason.EVICTED, False),
    "node under pressure": (
        disrupted("TerminationByKubelet", reason="Evicted", message="low on memory"),
        Reason.EVICTED,
        False,
    ),
    "node shuts down": (
        disrupted("TerminationByKubelet", reason="Terminated"),
        Reason.NODE_LOST,
        False,
    ),
    "a critical pod came": (
        disrupted("TerminationByKubelet", reason="Preempting"),
        Reason.PREEMPTED,
        False,
    ),
    "a reason of tomorrow": (disrupted("MovedToMars"), Reason.POD_LOST, False),
    "filled its own volume": (
        {"phase": "Failed", "reason": "Evicted", "message": "Usage of EmptyDir exceeds the limit"},
        Reason.EVICTED,
        True,
    ),
    "device gone": (
        {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no device"},
        Reason.POD_LOST,
        True,
    ),
    "killed for memory": (ended(137, "OOMKilled"), Reason.OUT_OF_MEMORY, False),
    "out of GPU memory": (
        said(failed(Reason.OUT_OF_MEMORY, "rank 0 ran out of GPU memory"), 1),
        Reason.OUT_OF_MEMORY,
        False,
    ),
    "killed": (ended(137), Reason.RANK_CRASHED, True),
    "crashed": (ended(1, message="Traceback\nValueError: x"), Reason.RANK_CRASHED, True),
    "stopped with a checkpoint": (
        said(failed(Reason.POD_LOST, "stopped after step 3", exit_code=143), 143),
        Reason.POD_LOST,
        False,
    ),
    "an old driver": (
        said(failed(Reason.DRIVER_TOO_OLD, "the NVIDIA driver of the node (535) is too old"), 1),
        Reason.DRIVER_TOO_OLD,
        True,
    ),
    "no GPU in the container": (
        said(failed(Reason.GPU_UNUSABLE, "the container cannot use a GPU"), 1),
        Reason.GPU_UNUSABLE,
        True,
    ),
    "storage away": (said(failed(Reason.S3_UNAVAILABLE), 69), Reason.S3_UNAVAILABLE, True),
}


@pytest.mark.parametrize("case", TABLE)
def test_each_end_has_its_reason_place_and_count(case: str) -> None:
    status, code, is_counted = TABLE[case]
    verdict = judge(a_job({"phase": "Running"}, status))
    assert verdict is not None
    assert (verdict.error.code, verdict.is_counted, verdict.is_users) == (code, is_counted, False)
    assert (verdict.error.rank, verdict.error.node) == (1, "node-1")
    assert verdict.error.code in names.END_REASONS


@pytest.mark.parametrize("code", sorted(names.USER_REASONS))
def test_an_error_of_the_user_wins_and_is_never_retried(code: str) -> None:
    for status, _, _ in TABLE.values():
        verdict = judge(a_job(status, said(failed(code), names.EXIT_USER)))
        assert verdict is not None
        assert (verdict.error.code, verdict.error.node) == (code, "node-1")
        assert not may_retry(verdict, [], 100).is_allowed


def test_a_rank_that_the_kernel_killed_for_memory_is_out_of_memory_with_its_log() -> None:
    report = failed(Reason.RANK_CRASHED, "rank 1 was killed", rank=1, exit_code=137, log=["step 3"])
    status = ended(1, "OOMKilled", message=report.to_termination_message())
    verdict = judge(a_job({"phase": "Running"}, status))
    assert verdict is not None
    assert (verdict.error.code, verdict.is_counted) == (Reason.OUT_OF_MEMORY, False)
    assert verdict.error.log == ["step 3"]
    expected = messages.pod_out_of_memory("ft-a1-1", "150Mi", "resources.memory")
    assert (verdict.error.message, verdict.error.hint) == (expected.message, expected.hint)
    last = may_retry(verdict, [], 3, messages.smaller_batch_failed(1 / 16))
    assert (last.is_allowed, last.hint) == (False, verdict.error.hint)


def test_a_deleted_pod_is_lost_and_counts() -> None:
    verdict = judge(a_job({"phase": "Running"}, deleted=True))
    assert verdict is not None
    assert (verdict.error.code, verdict.is_counted) == (Reason.POD_LOST, True)


ANY = st.text(
    st.characters(exclude_categories=["Cs"]), max_size=3000
)  # JSON has no lone surrogates


@given(
    code=ANY | st.sampled_from(sorted(names.END_REASONS)),
    message=ANY,
    param=ANY,
    hint=ANY,
    rank=st.none() | st.integers(-(2**31), 2**31),
    lines=st.lists(ANY, max_size=40),
)
def test_any_report_of_a_pod_fits_the_status(
    code: str, message: str, param: str, hint: str, rank: int | None, lines: list[str]
) -> None:
    failure = Failure(
        code=code, message=message, param=param, hint=hint, rank=rank, lines=lines, log=lines
    )
    text = json.dumps({"kind": "outcome", "failure": failure.model_dump(by_alias=True)})
    verdict = judge(a_job(ended(1, message=text)))
    assert verdict is not None
    assert verdict.error.code in names.END_REASONS
    assert ErrorInfo.model_validate_json(verdict.error.to_json()) == verdict.error


def test_out_of_memory_halves_the_micro_batch_down_to_a_sixteenth() -> None:
    world = World(a_finetune(maxRestarts=0)).until_running()
    for number, share in enumerate([0.5, 0.25, 0.125, 0.0625], 2):
        outcome = failed(Reason.OUT_OF_MEMORY, "rank 1 ran out of GPU memory", rank=1)
        world.end_pod(f"a{number - 1}", 1, 1, outcome)
        world.progress = None
        world.settle()
        attempt = world.status.attempts[-1]
        assert (attempt.number, attempt.micro_batch_share) == (number, share)
        assert world.status.attempts[-2].counted is False
        assert f'"microBatchShare":{share}' in world.task()
        assert "half the micro-batch" in world.status.message
    world.end_pod("a5", 1, 1, failed(Reason.OUT_OF_MEMORY, "rank 1 ran out of GPU memory"))
    world.settle()
    assert (world.status.state, world.status.error.code) == ("failed", "OutOfMemory")
    assert messages.smaller_batch_failed(0.0625) in world.status.error.message
    assert "zeroStage" in world.status.error.hint


@pytest.mark.parametrize("code", [Reason.DRIVER_TOO_OLD, Reason.GPU_UNUSABLE])
def test_a_node_that_cannot_train_is_named_before_the_ranks_that_waited_for_it(code: str) -> None:
    echo = said(failed(Reason.RANK_CRASHED, "rank 0 lost the connection to another rank"), 1)
    verdict = judge(a_job(echo, said(failed(code, "the node cannot train"), 1)))
    assert verdict is not None
    assert (verdict.error.code, verdict.error.node) == (code, "node-1")
    assert may_retry(verdict, [], 3).is_allowed  # the next attempt may get another node
    assert not may_retry(verdict, [], 0).is_allowed


def test_the_next_attempts_prefer_other_nodes_than_those_that_cannot_train() -> None:
    world = World().until_running()
    for number, (code, node) in enumerate(
        [
            (Reason.DRIVER_TOO_OLD, "old"),
            (Reason.NODE_LOST, "lost"),  # it may come back
            (Reason.GPU_UNUSABLE, "broken"),
            (Reason.DRIVER_TOO_OLD, "old"),
        ],
        1,
    ):
        world.pod(f"a{number}")["spec"]["nodeName"] = node
        world.end_pod(f"a{number}", 0, 1, failed(code, "the node cannot train"))
        world.progress = None
        world.settle()
    made = [job["spec"]["template"]["spec"] for job in world.created if job["kind"] == "Job"]
    terms = [
        pod.get("affinity", {}).get("nodeAffinity", {}) for pod in made[1:]
    ]  # without the prepare Job
    fields = [
        [field["values"] for field in term["preference"]["matchFields"]]
        for affinity in terms
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", [])
    ]
    assert terms[0] == {}
    assert fields == [[["old"]], [["old"]], [["old"], ["broken"]]]
    assert world.status.state == "failed"  # after three counted restarts


def test_a_halved_micro_batch_stays_after_another_failure() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 137, failed(Reason.OUT_OF_MEMORY))
    world.settle()
    world.end_pod("a2", 0, 1, "boom")
    world.settle()
    assert [item.micro_batch_share for item in world.status.attempts] == [None, 0.5, 0.5]


def test_a_halved_share_survives_a_crash_of_the_operator() -> None:
    world = World().until_running()
    world.end_pod("a1", 0, 1, failed(Reason.OUT_OF_MEMORY))
    world.step(writes=False)
    world.settle()
    assert [item.micro_batch_share for item in world.status.attempts] == [None, 0.5]


@given(st.integers(0, 5), st.lists(st.booleans(), max_size=8))
def test_only_counted_failures_use_up_restarts(limit: int, counted: list[bool]) -> None:
    former = [Attempt(number=1, started_at="", counted=item) for item in counted]
    former_one = Attempt(number=1, started_at="")
    crash = Verdict.of(ErrorInfo(code=Reason.RANK_CRASHED, message=""))
    lost = Verdict.of(ErrorInfo(code=Reason.NODE_LOST, message=""), is_counted=False)
    assert may_retry(crash, former, limit).is_allowed == (sum(counted) < limit)
    assert may_retry(lost, former, limit).is_allowed
    assert not may_retry(lost, [former_one] * ATTEMPTS_AT_MOST, limit).is_allowed


def test_node_cause_and_log_lines_stay_when_the_pods_are_gone() -> None:
    world = World().until_running()
    world.pod("a1", 1)["spec"]["nodeName"] = "node-7"
    world.end_pod("a1", 1, 139, "line 1\nSegmentation fault")
    world.settle()
    first = world.status.attempts[0]
    assert (first.reason, first.rank, first.node, first.exit_code) == (
        "RankCrashed",
        1,
        "node-7",
        139,
    )
    assert first.log == ["line 1", "Segmentation fault"]
    assert first.hint


def test_only_the_newest_attempts_keep_their_log_lines() -> None:
    world = World(a_finetune(maxRestarts=50)).until_running()
    for number in range(1, 21):
        world.end_pod(f"a{number}", 0, 1, "boom")
        world.settle()
    assert sum(item.log is not None for item in world.status.attempts) <= 8


def test_each_restart_is_one_event_whether_its_attempt_trained_or_not() -> None:
    world = World(a_finetune(maxRestarts=50)).until_running()
    for number in (1, 2):
        world.end_pod(f"a{number}", 0, 1, f"boom {number}")
        world.progress = None
        world.settle()
    world.ready_pods("a3")
    world.progress = progress(attempt=3, resumed_from_step=25)
    world.settle()
    first, second, _ = world.status.attempts
    restarts = [event.message for event in world.status.events if event.reason == "Restarted"]
    assert restarts == [
        messages.restarted(2, None, first.message).message,
        messages.restarted(3, 25, second.message).message,
    ]


@pytest.mark.parametrize(
    ("spec", "state", "reason"),
    [({"cancel": True}, "cancelled", "Cancelled"), ({}, "failed", "DeadlineExceeded")],
)
def test_a_cancellation_or_a_deadline_closes_the_attempt(
    spec: dict[str, Any], state: str, reason: str
) -> None:
    resources = {"nodes": 2, "gpusPerNode": 4}
    world = World(a_finetune(activeDeadlineSeconds=3600, resources=resources)).until_running()
    changed = {"active_deadline_seconds": 1, **spec}
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(**changed))
    world.settle()
    (attempt,) = world.status.attempts
    assert (world.status.state, attempt.reason) == (state, reason)
    assert attempt.ended_at is not None
    assert world.status.gpu_seconds > 0


def test_an_attempt_that_waited_in_vain_has_the_cause() -> None:
    world = World(a_finetune(pendingDeadlineSeconds=60)).until_training()
    world.pod("a1", 0)["status"]["containerStatuses"] = [
        {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    ]
    world.settle()
    world.finetune = world.finetune.replace(
        spec=world.finetune.spec.replace(pending_deadline_seconds=1)
    )
    world.settle()
    assert world.status.error.code == "DeadlineExceeded"
    assert world.status.attempts[0].reason == "ImagePull"
    assert "no such image" in world.status.attempts[0].message


@pytest.mark.parametrize(
    ("reason", "is_counted"), [("PodFailurePolicy", False), ("BackoffLimitExceeded", True)]
)
def test_a_job_records_a_disruption_for_an_operator_that_was_drained_too(
    reason: str, is_counted: bool
) -> None:
    world = World().until_running()
    name = world.job("a1")
    report = {
        "type": "Failed",
        "status": "True",
        "reason": reason,
        "message": "the Job's own words",
    }
    world.jobs[name]["status"] = {"conditions": [report]}
    world.pods[name] = []
    verdict = judge(world.observe().attempts[1])
    assert verdict is not None
    assert (verdict.error.code, verdict.is_counted) == (Reason.POD_LOST, is_counted)
    assert "the Job's own words" in verdict.error.message


def test_only_disrupted_pods_end_a_job_by_its_failure_policy() -> None:
    world = World().until_training()
    policy = world.jobs[world.job("a1")]["spec"]["podFailurePolicy"]
    (rule,) = policy["rules"]
    assert rule == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}
