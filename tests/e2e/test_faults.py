"""Real pods, and what takes them away: every training ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from devcluster import instance, processes
from tests.e2e import training as trainings
from tests.e2e.conftest import ROOT, Cluster, Team
from tests.e2e.training import EPOCH_STEPS, Results, Training
from tests.support.kubectl import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

NODE = "devcluster"
OUTAGE_SECONDS = 60


@pytest.fixture(autouse=True)
def here(cluster: Cluster) -> None:
    """Processes are killed and the node is drained: only on this machine's own cluster."""
    cluster.of_this_machine()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_restarts_the_gang_from_the_last_epoch(
    team: Team, undisturbed: Results, name: str, rank: int
) -> None:
    training = Training(team, name)
    training.wait_step(EPOCH_STEPS + 20)
    os.kill(training.rank_process(rank), signal.SIGKILL)
    training.wait_attempts(2, seconds=60)
    status = training.wait_success()
    first, second = status["attempts"]
    assert (first["reason"], first["rank"], first["counted"]) == ("RankCrashed", rank, True)
    assert "SIGKILL" in first["message"]
    assert second["resumedFromStep"] % EPOCH_STEPS == 0
    assert second["resumedFromStep"] >= EPOCH_STEPS
    restarted = f"Fine-tune restarted from step {second['resumedFromStep']}: "
    assert any(message.startswith(restarted) for message in training.messages())
    assert training.results(status) == undisturbed


@pytest.fixture
def schedulable(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.kubectl("uncordon", NODE)


def test_a_drained_node_gives_the_pods_back_with_a_checkpoint(
    team: Team, undisturbed: Results, name: str, schedulable: None
) -> None:
    training = Training(team, name, maxRestarts=0)
    training.wait_step(EPOCH_STEPS + 20)
    drain(team, f"--pod-selector={training.selector}")
    training.wait_message("2 of 2 pods can't be scheduled: ", "unschedulable")
    team.kubectl("uncordon", NODE)
    status = training.wait_success()
    first, second = status["attempts"]
    assert (first["reason"], first["node"], first["counted"]) == ("Evicted", NODE, False)
    assert second["resumedFromStep"] > EPOCH_STEPS
    assert training.results(status) == undisturbed


def test_a_node_drained_of_the_operator_too_costs_no_restart_of_those_allowed(
    team: Team, undisturbed: Results, name: str, schedulable: None
) -> None:
    training = Training(team, name, maxRestarts=0)
    training.wait_step(EPOCH_STEPS + 20)
    drain(team, "--force")
    assert not training.pods()
    team.kubectl("uncordon", NODE)
    status = training.wait_success()
    first, second = status["attempts"]
    assert first["reason"] in {"Evicted", "PodLost"}  # as much as the operator still saw
    assert first["counted"] is False
    assert second["resumedFromStep"] > EPOCH_STEPS
    assert training.results(status) == undisturbed


def drain(team: Team, *which: str) -> None:
    """Cordon the node and evict pods, with their time to save a checkpoint."""
    team.kubectl("drain", NODE, "--delete-emptydir-data", "--timeout=90s", *which)


def test_suspended_it_frees_the_pods_and_goes_on_where_it_stopped(
    team: Team, undisturbed: Results, name: str
) -> None:
    training = Training(team, name)
    training.wait_step(EPOCH_STEPS + 20)
    training.change(suspend=True)
    until(lambda: not training.pods(), 90, training.told)
    status = training.status
    assert (status["state"], status["reason"]) == ("pending", "Suspended")
    training.change(suspend=False)
    status = training.wait_success()
    first, second = status["attempts"]
    assert first["reason"] == "Suspended"
    assert second["resumedFromStep"] > EPOCH_STEPS
    messages = training.messages()
    assert messages.index("Fine-tune suspended") < messages.index("Fine-tune resumed")
    assert training.results(status) == undisturbed


def test_cancelled_it_keeps_the_rows_and_a_checkpoint_and_no_pod(
    team: Team, undisturbed: Results, name: str
) -> None:
    training = Training(team, name)
    training.wait_step(EPOCH_STEPS + 20)
    training.change(cancel=True)
    status = team.kubectl.wait_state(name, "cancelled", seconds=60)
    until(lambda: not training.pods(), 90, training.told)
    assert "fineTunedModel" not in status
    prefix = f"{team.prefix}/out/{team.name}/{name}-{training.uid[:8]}"
    keys = team.keys(prefix)
    assert any(key.startswith(f"{prefix}/checkpoints/") for key in keys)
    assert not any(key.startswith(f"{prefix}/model/") for key in keys)
    rows = team.read(f"s3://{team.cluster.bucket}/{prefix}/results.csv")
    assert len(rows.splitlines()) > EPOCH_STEPS
    assert undisturbed.rows.startswith(rows)


def operator_process(team: Team) -> int:
    """The host's process id of the team's operator."""
    (pod,) = team.kubectl.list("pods", "app.kubernetes.io/component=operator")
    wanted = f"HOSTNAME={pod['metadata']['name']}".encode()
    for pid, command, environment in trainings.processes():
        if wanted in environment and b"finetune_operator" in b" ".join(command):
            return pid
    raise AssertionError("no process of the operator")


def test_a_killed_operator_is_missed_by_nobody(team: Team, undisturbed: Results, name: str) -> None:
    training = Training(team, name)
    training.wait_step(EPOCH_STEPS + 20)
    os.kill(operator_process(team), signal.SIGKILL)
    status = training.wait_success()
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Succeeded"]
    (pod,) = team.kubectl.list("pods", "app.kubernetes.io/component=operator")
    assert pod["status"]["containerStatuses"][0]["restartCount"] >= 1
    jobs = team.kubectl.list("jobs", f"finetune.dev/finetune={name}")
    assert len(jobs) == 2  # prepare, and one attempt
    assert training.results(status) == undisturbed


def test_a_minute_without_s3_ends_no_training(team: Team, undisturbed: Results, name: str) -> None:
    training = Training(team, name)
    training.wait_step(EPOCH_STEPS - 20)
    processes.kill([instance.running()["s3"]])
    time.sleep(OUTAGE_SECONDS)
    subprocess.run(
        [sys.executable, "-m", "devcluster", "up"], cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    status = training.wait_success()
    assert all(not attempt.get("counted") for attempt in status["attempts"])
    assert training.results(status) == undisturbed
