"""After an out-of-memory failure, the next attempt is smaller in what ran out."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_api.outcome import Outcome
from finetune_api.tasks import FallbackPlan
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.build.pod_resources import RAISES_AT_MOST
from finetune_operator.core.attempts.oom_retry import next_size, size_to_record
from tests.support.objects import World, a_finetune, a_settings, failed, trained

GPUS = {"nodes": 1, "gpusPerNode": 8}
ESTIMATE = {"memory_per_pod_gib": 100.0}
FALLBACKS = [
    FallbackPlan(zero_stage=2, offload="none", memory_per_rank_gib=30, memory_per_pod_gib=110),
    FallbackPlan(zero_stage=3, offload="optimizer", memory_per_rank_gib=9, memory_per_pod_gib=200),
    FallbackPlan(zero_stage=3, offload="parameters", memory_per_rank_gib=6, memory_per_pod_gib=250),
]
OF_GPU = failed(Reason.OUT_OF_MEMORY, "rank 1 ran out of GPU memory", exhausted_memory="gpu")
OF_HOST = failed(Reason.OUT_OF_MEMORY, "rank 1 ran out of host memory", exhausted_memory="host")
OLD_IMAGE = failed(Reason.OUT_OF_MEMORY, "rank 1 ran out of host memory", exit_code=137)
OVER_REQUEST = {
    "phase": "Failed",
    "reason": "Evicted",
    "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. "
    "Container main was using 140Gi, request is 100Gi, has larger consumption of memory. ",
    "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    ],
}


def a_world(resources: dict[str, Any] = GPUS, **spec: Any) -> World:
    return World(a_finetune(resources=resources, **spec)).until_running(**ESTIMATE)


def end(world: World, number: int, outcome: Outcome | JsonObject) -> World:
    """End an attempt with an outcome, or with the status of its pod."""
    if isinstance(outcome, Outcome):
        world.end_pod(f"a{number}", 0, 1, outcome)
    else:
        world.pod(f"a{number}")["status"] = outcome
    world.progress = None
    world.settle()
    return world


def requests(world: World, number: int) -> JsonObject:
    pod = world.jobs[world.job(f"a{number}")]["spec"]["template"]["spec"]
    found: JsonObject = pod["containers"][0]["resources"]
    return found


def share(world: World) -> float:
    return float(json.loads(world.task())["microBatchShare"])


def plan(world: World) -> tuple[int, str]:
    task = json.loads(world.task())
    return task["zeroStage"], task["offload"]


def test_gpu_memory_halves_the_micro_batch_and_keeps_the_request() -> None:
    world = end(a_world(), 1, OF_GPU)
    assert share(world) == 0.5
    assert requests(world, 2)["requests"]["memory"] == "102400Mi"
    assert world.status.attempts[0].exhausted_memory == "gpu"
    assert messages.HALF_MICRO_BATCH in world.status.message


def test_the_size_of_an_attempt_that_published_before_it_was_recorded_is_recorded() -> None:
    world = a_world()
    world.settings = world.settings.replace(restart_seconds=0)
    world.end_pod("a1", 0, 1, OF_GPU)
    while not any(name.endswith("-a2") for name in world.jobs):
        world.step(writes=False)  # the status, which has the second attempt
    for index in range(len(world.pods[world.job("a2")])):
        world.end_pod("a2", index, 0, trained() if index == 0 else None)
    world.settle()
    assert world.status.state == "succeeded"
    assert [item.micro_batch_share for item in world.status.attempts] == [None, 0.5]


@pytest.mark.parametrize("outcome", [OF_HOST, OLD_IMAGE, OVER_REQUEST], ids=str)
def test_host_memory_raises_the_estimated_request_by_half_and_keeps_the_micro_batch(
    outcome: Outcome | JsonObject,
) -> None:
    world = end(a_world(maxRestarts=0), 1, outcome)
    assert share(world) == 1
    assert requests(world, 2)["requests"]["memory"] == "153600Mi"
    assert "memory" not in requests(world, 2)["limits"]
    first, second = world.status.attempts
    assert (first.exhausted_memory, first.counted) == ("host", False)
    assert (second.micro_batch_share, second.ended_at) == (None, None)
    assert messages.larger_request("153600Mi") in world.status.message


def test_a_pod_that_was_evicted_within_its_request_gets_the_same_request() -> None:
    innocent = OVER_REQUEST | {"message": "The node was low on resource: memory. "}
    world = end(a_world(), 1, innocent)
    assert requests(world, 2) == requests(a_world(), 1)
    assert world.status.attempts[0].exhausted_memory is None


def test_the_request_grows_three_times_and_the_failure_names_it() -> None:
    world = a_world(maxRestarts=0)
    for number in range(1, RAISES_AT_MOST + 1):
        end(world, number, OF_HOST)
        assert world.status.state == "pending"
    end(world, RAISES_AT_MOST + 1, OF_HOST)
    assert (world.status.state, world.status.error.code) == ("failed", "OutOfMemory")
    assert messages.larger_request_failed("345600Mi") in world.status.error.message
    assert world.status.error.hint == messages.hint_for_request("345600Mi")
    assert {item.micro_batch_share for item in world.status.attempts} == {None}


def test_at_a_limit_of_the_user_a_repetition_counts_and_the_hint_has_both_numbers() -> None:
    world = a_world({**GPUS, "memory": "96Gi"}, maxRestarts=1)
    end(world, 1, OF_HOST)
    assert share(world) == 1
    assert requests(world, 2) == requests(a_world({**GPUS, "memory": "96Gi"}), 1)
    first = world.status.attempts[0]
    assert (first.counted, first.hint) == (True, messages.hint_for_limit("96Gi", 100.0))
    end(world, 2, OF_HOST)
    assert (world.status.state, world.status.error.code) == ("failed", "OutOfMemory")
    assert messages.restarts_spent(1) in world.status.error.message
    assert "96Gi" in world.status.error.hint and "100.0 GiB" in world.status.error.hint


def test_without_an_estimate_host_memory_counts_because_nothing_changes() -> None:
    world = World(a_finetune(resources=GPUS, maxRestarts=0)).until_running()
    end(world, 1, OF_HOST)
    assert world.status.state == "failed"
    assert messages.restarts_spent(0) in world.status.error.message


def test_on_cpu_the_micro_batch_is_host_memory_too() -> None:
    world = a_world({"nodes": 1, "gpusPerNode": 0}, maxRestarts=0)
    end(world, 1, OF_HOST)
    assert share(world) == 0.5
    assert requests(world, 2)["requests"]["memory"] == "153600Mi"
    for number in range(2, 6):
        end(world, number, OF_HOST)
    assert world.status.state == "failed"
    assert messages.smaller_batch_failed(0.0625) in world.status.error.message


def test_what_ran_out_survives_a_crash_of_the_operator() -> None:
    world = a_world()
    world.end_pod("a1", 0, 1, OF_HOST)
    world.progress = None
    world.step(writes=False)  # a2 is created, the status is not written
    world.settle()
    end(world, 2, OF_HOST)
    assert requests(world, 3)["requests"]["memory"] == "230400Mi"
    assert [item.exhausted_memory for item in world.status.attempts] == ["host", "host", None]


def test_a_pod_without_a_limit_was_killed_because_its_node_had_no_memory() -> None:
    world = a_world()
    world.end_pod("a1", 0, 137, "")
    state = world.pod("a1")["status"]["containerStatuses"][0]["state"]
    state["terminated"]["reason"] = "OOMKilled"
    world.settle()
    expected = messages.pod_out_of_memory("ft-tone-11111111-a1-0", None, "resources.memory")
    assert world.status.attempts[0].message == expected.message
    assert "its node" in expected.message
    assert requests(world, 2)["requests"]["memory"] == "153600Mi"


def test_a_planned_attempt_after_a_wait_has_the_larger_request() -> None:
    """The attempt after a counted failure waits; the raise of an earlier one stays."""
    world = World(a_finetune(resources=GPUS), a_settings(restartSeconds=10))
    world.until_running(**ESTIMATE)
    end(world, 1, OF_HOST)
    world.ready_pods("a2")
    end(world, 2, failed(Reason.RANK_CRASHED, "boom", exit_code=139))
    assert not any(name.endswith("-a3") for name in world.jobs)
    for _ in range(20):
        world.step()
    assert requests(world, 3)["requests"]["memory"] == "153600Mi"


ENDS = st.sampled_from(
    [
        ("OutOfMemory", "gpu"),
        ("OutOfMemory", "host"),
        ("OutOfMemory", None),
        ("Evicted", "host"),
        ("RankCrashed", None),
    ]
)


@given(st.lists(ENDS, max_size=20), st.sampled_from([0, 8]), st.integers(0, 3))
def test_a_size_depends_only_on_the_ends_before_it(
    ends: list[tuple[str, Any]], gpus: int, plans: int
) -> None:
    finetune = a_finetune(resources={"gpusPerNode": gpus})
    resolved = World().until_training().status.resolved.replace(fallbacks=FALLBACKS[:plans])
    attempts: list[Attempt] = []
    for number, (reason, exhausted) in enumerate([*ends, ("", None)], 1):
        size = next_size(finetune, resolved, attempts, number)
        before = ends[: number - 1]
        failures = sum(
            reason == "OutOfMemory" and (memory != "host" or not gpus) for reason, memory in before
        )
        used = min(max(0, failures - 2), plans)
        assert size.micro_batch_share == 0.5 ** (failures - used)
        assert size.fallback == (FALLBACKS[used - 1] if used else None)
        assert size.memory_raises == min(sum(item[1] == "host" for item in before), RAISES_AT_MOST)
        record = Attempt(number=number, started_at="", reason=reason, exhausted_memory=exhausted)
        attempts.append(record.replace(**size_to_record(size)))


def test_the_third_time_without_gpu_memory_the_next_plan_is_used() -> None:
    world = World(a_finetune(resources=GPUS)).until_running(
        **ESTIMATE, zero_stage=1, offload="none", fallbacks=FALLBACKS[:2]
    )
    for number in (1, 2):
        end(world, number, OF_GPU)
    assert (share(world), plan(world)) == (0.25, (1, "none"))
    end(world, 3, OF_GPU)
    assert (share(world), plan(world)) == (0.25, (2, "none"))
    assert requests(world, 4)["requests"]["memory"] == "112640Mi"
    assert messages.other_plan(2, "none") in world.status.message
    assert messages.HALF_MICRO_BATCH not in world.status.message
    record = world.status.attempts[-1]
    assert (record.zero_stage, record.offload, record.micro_batch_share) == (2, "none", 0.25)
    assert world.status.resolved.zero_stage == 1
    end(world, 4, failed(Reason.RANK_CRASHED, "boom", exit_code=139))
    assert plan(world) == (2, "none")
    end(world, 5, OF_GPU)
    assert (share(world), plan(world)) == (0.25, (3, "optimizer"))
    for number, rest in ((6, 0.125), (7, 0.0625)):
        end(world, number, OF_GPU)
        assert (share(world), plan(world)) == (rest, (3, "optimizer"))
    end(world, 8, OF_GPU)
    assert (world.status.state, world.status.error.code) == ("failed", "OutOfMemory")


def test_a_plan_whose_record_was_lost_is_read_from_the_task() -> None:
    world = World(a_finetune(resources=GPUS)).until_running(**ESTIMATE, fallbacks=FALLBACKS[:1])
    for number in (1, 2):
        end(world, number, OF_GPU)
    world.end_pod("a3", 0, 1, OF_GPU)
    world.step(writes=False)  # a4 is created, the status is not written
    world.settle()
    record = world.status.attempts[-1]
    assert (record.number, record.zero_stage, record.micro_batch_share) == (4, 2, 0.25)


def test_host_memory_after_the_smallest_micro_batch_still_raises_the_request() -> None:
    world = a_world(maxRestarts=0)
    for number in range(1, 5):
        end(world, number, OF_GPU)
    assert share(world) == 0.0625
    end(world, 5, OF_HOST)
    assert (world.status.state, share(world)) == ("pending", 0.0625)
    assert requests(world, 6)["requests"]["memory"] == "153600Mi"


def test_crds_without_the_memory_that_ran_out_end_after_six_attempts() -> None:
    """Older CRDs drop the field, so that no raise is recorded."""
    world = a_world(maxRestarts=0)
    for number in range(1, 7):
        end(world, number, OF_HOST)
        pruned = [item.replace(exhausted_memory=None) for item in world.status.attempts]
        world.finetune = world.finetune.replace(status=world.status.replace(attempts=pruned))
    assert world.status.state == "failed"
