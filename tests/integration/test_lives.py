"""Lives with real controllers: many of one name, changes of every field, and a gang of 64 pods.

Numbers: the reliability table.
"""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.wire import JsonObject
from tests.integration.crowds import TWO_NODES
from tests.integration.sweep.api import ApiRefusalError
from tests.integration.sweep.cells import QUIET_SECONDS, Place, settle
from tests.integration.sweep.faults import Cell
from tests.integration.sweep.life import NAME, Life, ready_now
from tests.integration.sweep.sweep import place
from tests.support.kubectl import finetune

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROUNDS, ROUNDS_AT_LEAST, ROUNDS_SECONDS = 50, 10, 10.0
CALM = Cell("success")


@pytest.fixture(scope="module")
def scene() -> Iterator[Place]:
    with place() as made:
        yield made


def test_t15_of_fifty_finetunes_with_one_name_each_has_its_own_jobs_and_the_last_one_its_pods(
    scene: Place,
) -> None:
    uids: list[str] = []
    with scene.life(CALM) as life:
        end = time.monotonic() + ROUNDS_SECONDS
        while len(uids) < ROUNDS_AT_LEAST or (len(uids) < ROUNDS and time.monotonic() < end):
            if uids:
                life.delete()
            life.create()
            uids.append(uid_of(life))
            (pod,) = life.pods(f"{uids[-1][:8]}-prepare")
            life.api.patch(
                "pods", f"{pod}/status", {"status": ready_now()}
            )  # it still runs at the end
        life.check_data()
        life.train()
        life.publish()
        status = life.wait("succeeded")
        settle(life, CALM, None)
        jobs = life.api.list("jobs")
        owners = {owner_of(job) for job in jobs}
        assert len(set(uids)) == len(uids)
        assert owners == {uids[-1]}
        assert len(jobs) == 2
        assert len(status["attempts"]) == 1
        # The pods of the former ones are gone, or they go.
        mine = {job["metadata"]["uid"] for job in jobs}
        life.until(lambda: {owner_of(pod) for pod in life.api.list("pods")} == mine, "old pods")
    print(f"{len(uids)} FineTunes of one name")


def uid_of(life: Life) -> str:
    found = life.api.get("finetunes", NAME)
    assert found is not None
    return str(found["metadata"]["uid"])


def owner_of(thing: JsonObject) -> str:
    (owner,) = thing["metadata"]["ownerReferences"]
    return str(owner["uid"])


# For each field a value that differs from that of the FineTunes below.
FIXED: dict[str, Any] = {
    "model": "gpt5",
    "suffix": "new",
    "trainingFile": "s3://bucket/other.jsonl",
    "trainingFiles": [{"uri": "s3://bucket/other.jsonl"}],
    "validationFile": "s3://bucket/valid.jsonl",
    "hyperparameters": {"nEpochs": 7},
    "method": {"type": "lora"},
    "resources": {"nodes": 1},
    "runtime": "nvidia",
    "deepspeed": {"zeroStage": 3},
    "storage": {"secretName": "other"},
    "output": "s3://elsewhere/out",
    "queueName": "gpus",
    "priorityClassName": "high",
    "scheduling": {"nodeSelector": {"zone": "b"}},
    "dataTolerance": 0.5,
    "dryRun": True,
    "podLabels": {"acme.com/team": "a"},
    "podAnnotations": {"acme.com/note": "b"},
    "reuse": "Never",
}
STEERING: dict[str, Any] = {
    "suspend": False,
    "cancel": False,
    "maxRestarts": 1,
    "activeDeadlineSeconds": 86400,
    "pendingDeadlineSeconds": 86400,
    "stallSeconds": 86400,
    "ttlSecondsAfterFinished": 86400,
}


def test_t23_no_change_of_a_running_fine_tune_does_harm_and_those_that_steer_it_are_applied(
    scene: Place,
) -> None:
    fields = {field.alias or name for name, field in FineTuneSpec.model_fields.items()}
    assert FIXED.keys() | STEERING.keys() == fields
    with scene.life(CALM) as life:
        life.create()
        life.pods("-prepare")
        try_changes(life)
        life.check_data()
        life.pods("-a1")
        try_changes(life)
        pods = life.train()
        try_changes(life)
        life.end(pods[1], 137)  # maxRestarts 1 still allows this one
        pods = life.train("-a2")
        life.change(ttlSecondsAfterFinished=0)
        life.publish("-a2")
        status = life.wait("succeeded")
        try_changes(life)
        settled = settle(life, CALM, None)
        assert [item["number"] for item in status["attempts"]] == [1, 2]
        assert settled["jobs"] == []  # the time to live was applied
    with scene.life(CALM) as life:
        life.create()
        life.check_data()
        pods = life.train()
        life.change(maxRestarts=0)
        life.end(pods[1], 137)
        assert life.wait("failed")["error"]["code"] == "RankCrashed"
        try_changes(life)
        settle(life, CALM, None)


def try_changes(life: Life) -> None:
    """Change every field: the fixed ones are refused, and the others change only themselves."""
    before = spec_of(life)
    for field, value in FIXED.items():
        removed = {"trainingFile": None} if field == "trainingFiles" else {}
        with pytest.raises(ApiRefusalError, match=r"cannot be changed|exactly one") as refused:
            life.change(**{field: value, **removed})
        assert refused.value.status == 422, field
    assert spec_of(life) == before
    for field, value in STEERING.items():
        life.change(**{field: value})
    assert spec_of(life) == {**before, **STEERING}


def spec_of(life: Life) -> JsonObject:
    found = life.api.get("finetunes", NAME)
    assert found is not None
    spec: JsonObject = found["spec"]
    return spec


def test_s7_the_pods_of_a_gang_of_64_change_and_cost_at_most_four_writes(scene: Place) -> None:
    with scene.life(CALM) as life:
        life.create(resources={"nodes": 64, "gpusPerNode": 0})
        life.check_data()
        life.pods("-a1")
        life.wait_attempt()
        before = status_writes(life)
        pods = life.train()
        assert len(pods) == 64
        assert status_writes(life) - before <= 4
        life.publish()
        status = life.wait("succeeded")
        assert status_writes(life) - before <= 4
        settle(life, CALM, None)
        assert len(status["attempts"]) == 1


def status_writes(life: Life) -> int:
    return sum(seen.resource == "finetunes/status" for seen in life.proxy.writes)


def test_t29_a_poisonous_finetune_does_not_hold_up_a_hundred_others(scene: Place) -> None:
    with scene.life(CALM) as life:
        life.api.create("finetunes", finetune("poison", **TWO_NODES))
        # No version can read this status.
        status = {"state": "pending", "startedAt": "no time at all", "conditions": []}
        life.api.patch("finetunes", "poison/status", {"status": status})
        life.until(lambda: errors_of(life) >= 1, "an error")
        others = [f"other-{number:02}" for number in range(100)]
        for name in others:
            life.api.create("finetunes", finetune(name, model="gpt5"))

        def left() -> list[str]:
            found = {
                item["metadata"]["name"]: item.get("status", {})
                for item in life.api.list("finetunes")
            }
            assert found["poison"] == status
            return [name for name in others if found[name].get("state") != "failed"]

        life.until(lambda: not left(), lambda: f"left: {left()}")
        # Each retry waits twice as long as the one before.
        errors = errors_of(life)
        time.sleep(QUIET_SECONDS)
        assert errors_of(life) <= errors + 2


def errors_of(life: Life) -> int:
    """The number of reconciles that raised an error."""
    found = re.search(r'reconciles_total\{result="error"\} (\d+)', life.operator.metrics())
    return int(found.group(1)) if found else 0
