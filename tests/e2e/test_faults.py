"""Disruptions of real pods: every training has the results of an undisturbed one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from devcluster import instance, processes
from finetune_data.memory.node import GIB, LEAST_RANK_BYTES
from tests.e2e import training as trainings
from tests.e2e.conftest import ROOT, Cluster, Team
from tests.e2e.training import EPOCH_STEPS, Results, Training
from tests.support.cases import LONG
from tests.support.kubectl import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NODE = "devcluster"
OUTAGE_SECONDS = 60


@pytest.fixture(autouse=True)
def here(cluster: Cluster) -> None:
    """The tests kill processes and drain the node, so they need this machine's own cluster."""
    cluster.of_this_machine()


def test_after_killed_ranks_all_pods_restart_from_the_last_epoch(
    team: Team, undisturbed: Results, name: str
) -> None:
    training = Training(team, name)
    for attempt, rank in ((1, 1), (2, 0)):
        training.wait_step(attempt * EPOCH_STEPS + 20)
        # Uploads have the lowest priority: on a busy machine they may take an epoch.
        training.wait_step(attempt * EPOCH_STEPS, of="checkpointStep")
        os.kill(training.rank_process(rank), signal.SIGKILL)
        training.wait_attempts(attempt + 1)
    status = training.wait_success()
    *killed, last = status["attempts"]
    assert [(each["reason"], each["rank"]) for each in killed] == [
        ("RankCrashed", 1),
        ("RankCrashed", 0),
    ]
    assert all(each["counted"] and "SIGKILL" in each["message"] for each in killed)
    resumed = [each["resumedFromStep"] for each in status["attempts"][1:]]
    assert resumed[0] >= EPOCH_STEPS and resumed[1] >= 2 * EPOCH_STEPS
    assert all(step % EPOCH_STEPS == 0 for step in resumed)
    restarted = f"Fine-tune restarted from step {last['resumedFromStep']}: "
    assert any(message.startswith(restarted) for message in training.messages())
    assert training.results(status) == undisturbed


def test_a_rank_that_the_kernel_kills_for_memory_is_out_of_memory(team: Team, name: str) -> None:
    # More than the data check refuses, and less than the imported libraries take.
    resources = {"nodes": 1, "gpusPerNode": 0, "memory": "420Mi"}
    training = Training(team, name, resources=resources)
    status = team.kubectl.wait_state(name, "failed", seconds=300)
    print(training.summary())
    assert any(message.startswith("resources.memory is 0.4 GiB") for message in training.messages())
    assert {each["reason"] for each in status["attempts"]} == {"OutOfMemory"}
    assert not any(each["counted"] for each in status["attempts"])
    assert {each["exhaustedMemory"] for each in status["attempts"]} == {"host"}
    assert status["error"]["code"] == "OutOfMemory"
    assert "raise resources.memory: it is 420Mi" in status["error"]["hint"]


def test_memory_that_is_certainly_too_small_is_refused_with_both_numbers(
    team: Team, name: str
) -> None:
    resources = {"nodes": 1, "gpusPerNode": 0, "memory": "200Mi"}
    training = Training(team, name, resources=resources)
    error = team.kubectl.wait_state(name, "failed", seconds=120)["error"]
    assert (error["code"], error["param"]) == ("InvalidSpec", "resources.memory")
    assert f"at least {LEAST_RANK_BYTES / GIB:.1f} GiB" in error["message"]
    assert error["message"].endswith("but resources.memory is 0.2 GiB")
    assert training.pods() == []


@pytest.fixture
def schedulable(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.kubectl("uncordon", NODE)


def test_after_drains_and_a_suspension_it_continues_at_the_same_step_without_counted_restarts(
    team: Team, undisturbed: Results, name: str, schedulable: None
) -> None:
    training = Training(team, name, maxRestarts=0)
    training.wait_step(120)
    training.end_pods(lambda: drain(team, f"--pod-selector={training.selector}"))
    training.wait_message("2 of 2 pods cannot be scheduled: ", "unschedulable")
    team.kubectl("uncordon", NODE)

    training.wait_step(200)
    training.end_pods(lambda: drain(team, "--force"))  # includes the operator
    team.kubectl("uncordon", NODE)

    training.wait_step(280)
    training.end_pods(lambda: training.change(suspend=True))
    until(lambda: not training.pods(), 90, training.summary)
    assert (training.status["state"], training.status["reason"]) == ("pending", "Suspended")
    training.change(suspend=False)

    status = training.wait_success()
    drained, lost, suspended, last = status["attempts"]
    assert (drained["reason"], drained["node"], drained["counted"]) == ("Evicted", NODE, False)
    assert lost["reason"] in {
        "Evicted",
        "PodLost",
    }  # the operator was drained, too
    assert lost["counted"] is False
    assert suspended["reason"] == "Suspended"
    # Each attempt saved a checkpoint at its last step, after the last epoch's. (The operator was
    # drained together with the first one and may not have observed its start.)
    resumed = [each.get("resumedFromStep") for each in (lost, suspended, last)]
    assert resumed[0] is None or resumed[0] >= 120
    assert resumed[1] >= 200 and resumed[2] >= 280
    messages = training.messages()
    assert messages.index("Fine-tune suspended") < messages.index("Fine-tune resumed")
    assert training.results(status) == undisturbed


def drain(team: Team, *which: str) -> None:
    """Cordon the node and evict pods, with time to save a checkpoint."""
    team.kubectl("drain", NODE, "--delete-emptydir-data", "--timeout=90s", *which)


def test_a_cancelled_training_keeps_its_rows_and_a_checkpoint_but_no_pod(
    team: Team, undisturbed: Results, name: str
) -> None:
    training = Training(team, name)
    training.wait_step(120)
    training.end_pods(lambda: training.change(cancel=True))
    status = team.kubectl.wait_state(name, "cancelled", seconds=60)
    until(lambda: not training.pods(), 90, training.summary)
    assert "fineTunedModel" not in status
    prefix = f"{team.prefix}/out/{team.name}/{name}-{training.uid[:8]}"
    keys = team.keys(prefix)
    assert any(key.startswith(f"{prefix}/checkpoints/") for key in keys)
    assert not any(key.startswith(f"{prefix}/model/") for key in keys)
    rows = team.read(f"s3://{team.cluster.bucket}/{prefix}/results.csv")
    assert len(rows.splitlines()) > 120
    assert undisturbed.rows.startswith(rows)


@LONG
def test_training_survives_a_killed_operator_and_a_minute_without_s3(
    team: Team, undisturbed: Results, name: str
) -> None:
    training = Training(team, name)
    training.wait_step(1)
    with training.paced(300 / OUTAGE_SECONDS):
        os.kill(operator_process(team), signal.SIGKILL)
        processes.kill([instance.running()["s3"]])
        time.sleep(OUTAGE_SECONDS)
        assert training.step() > EPOCH_STEPS  # at least one checkpoint could not be uploaded
        devcluster = [sys.executable, "-m", "devcluster"]
        subprocess.run([*devcluster, "up"], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    status = training.wait_success()
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]
    (pod,) = team.kubectl.list("pods", "app.kubernetes.io/component=operator")
    assert pod["status"]["containerStatuses"][0]["restartCount"] >= 1
    assert training.results(status) == undisturbed


def operator_process(team: Team) -> int:
    """The host's process id of the team's operator."""
    (pod,) = team.kubectl.list("pods", "app.kubernetes.io/component=operator")
    wanted = f"HOSTNAME={pod['metadata']['name']}".encode()
    for pid, command, environment in trainings.processes():
        if wanted in environment and b"finetune_operator" in b" ".join(command):
            return pid
    raise AssertionError("no process of the operator")
