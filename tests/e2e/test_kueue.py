"""Kueue with its own program and manifests: FineTunes wait for quota, and are preempted.

KUEUE_VARIANT chooses one of the versions of `python3 -m devcluster kueue --help`. The usual one is
that of the newest program without its old API version.
"""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from devcluster.kueue import VARIANTS
from finetune_api.wire import JsonObject
from tests.e2e.conftest import ROOT, RUN, Cluster, Team
from tests.e2e.training import EPOCH_STEPS, Results, Training
from tests.support.cases import LONG
from tests.support.kubectl import until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # it may build Kueue first

QUEUE = "trainers"
URGENT = f"{RUN}-urgent"
VARIANT = os.environ.get("KUEUE_VARIANT", "0.19-v1beta2-only")
KUEUE = f"kueue.x-k8s.io/{VARIANTS[VARIANT].served[0]}"


def queue_of_three_pods(namespace: str) -> list[JsonObject]:
    """Two pods of one FineTune fit; the remaining quota of one pod is too small for another."""
    flavor = {"name": RUN, "resources": [{"name": "pods", "nominalQuota": 3}]}
    return [
        {"apiVersion": KUEUE, "kind": "ResourceFlavor", "metadata": {"name": RUN}},
        {
            "apiVersion": KUEUE,
            "kind": "ClusterQueue",
            "metadata": {"name": RUN},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [{"coveredResources": ["pods"], "flavors": [flavor]}],
            },
        },
        {
            "apiVersion": KUEUE,
            "kind": "LocalQueue",
            "metadata": {"name": QUEUE, "namespace": namespace},
            "spec": {"clusterQueue": RUN},
        },
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": URGENT},
            "value": 1000,
            # Kueue decides which pods exist; the node has room for all of them.
            "preemptionPolicy": "Never",
        },
    ]


def devcluster(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "devcluster", *arguments], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def kueue(cluster: Cluster) -> Iterator[None]:
    cluster.of_this_machine()
    devcluster("kueue", "--variant", VARIANT)
    yield
    devcluster("kueue", "--remove")


@pytest.fixture(scope="module")
def queueing(
    cluster: Cluster, kueue: None, tiny_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """A team whose operator may read Kueue's objects, and a queue."""
    made = Team(cluster, f"{RUN}-queueing", tmp_path_factory.mktemp("queueing"))
    made.create()
    made.kubectl.apply(*queue_of_three_pods(made.name))
    made.install("--set", "crds.install=false", "--set", "kueue.enabled=true")
    yield made
    made.kubectl("delete", "finetunes", "--all", "--timeout=60s")
    made.remove()
    made.kubectl("wait", "--for=delete", f"namespace/{made.name}", "--timeout=120s")
    made.kubectl("delete", "priorityclass", URGENT)


def test_a_fine_tune_waits_for_quota_is_preempted_and_has_the_results_of_an_undisturbed_one(
    queueing: Team, undisturbed: Results
) -> None:
    kubectl = queueing.kubectl
    first = Training(queueing, "first", queueName=QUEUE, maxRestarts=0)
    first.wait_step(EPOCH_STEPS + 20)
    with first.frozen():
        check_queue_positions(queueing)
        assert len(first.status["attempts"]) == 1
        urgent = Training(queueing, "urgent", queueName=QUEUE, priorityClassName=URGENT)
        until(lambda: not first.working(), 120, first.summary)
    first.wait_attempts(2)
    urgent.wait_step(1)
    with urgent.frozen():
        first.wait_message(f"in queue {QUEUE}")
        assert first.status["stage"] == "queued"
    urgent.wait_success()

    status = first.wait_success()
    before, after = status["attempts"]
    assert (before["reason"], before["counted"]) == ("Preempted", False)
    assert before["message"].startswith(f"queue {QUEUE} evicted the pods: Preempted to")
    assert after["resumedFromStep"] > EPOCH_STEPS
    assert first.results(status) == undisturbed
    until(lambda: all_finished(kubectl.list("workloads")), 30)


@LONG
def test_of_two_fine_tunes_with_room_for_one_and_a_half_both_end(queueing: Team) -> None:
    """The queue admits all pods of an attempt or none, so that none is released."""
    trainings = [Training(queueing, name, queueName=QUEUE) for name in ("older", "younger")]
    for training in trainings:
        status = training.wait_success()
        assert [item["reason"] for item in status["attempts"]] == ["Succeeded"]


def check_queue_positions(queueing: Team) -> None:
    second = Training(queueing, "second", queueName=QUEUE)
    second.wait_message(f"in queue {QUEUE} at position 1: couldn't assign flavors")
    third = Training(queueing, "third", queueName=QUEUE)
    third.wait_message(f"in queue {QUEUE} at position 2")
    assert (third.status["stage"], third.status["reason"]) == ("queued", "Queued")
    assert "Fine-tune enqueued. Queue number: 2" in third.messages()
    assert not second.pods()  # one pod would fit, but all pods start together
    assert not third.pods()
    queueing.kubectl("delete", "finetune", "second", "third", "--timeout=60s")


def all_finished(workloads: list[JsonObject]) -> bool:
    """Whether no workload holds quota."""
    return all(
        any(
            condition["type"] == "Finished" and condition["status"] == "True"
            for condition in workload["status"]["conditions"]
        )
        for workload in workloads
    )
