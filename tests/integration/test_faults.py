"""Faults of the API server, pods, and users. The numbers are those of the reliability table."""

import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from devcluster.controlplane import ControlPlane
from finetune_api import names
from finetune_api.names import Reason
from tests.integration.conftest import Kubelet, Operator
from tests.integration.crowds import TWO_NODES
from tests.integration.invariants import check_invariants
from tests.support.kubectl import Kubectl, finetune, until
from tests.support.objects import failed, prepared, trained
from tests.support.proxy import Answer, Cut, Fault, FaultyProxy, Late, Rule, Seen, let_pass

pytestmark = pytest.mark.integration


@pytest.fixture
def holds(team: Kubectl, control_plane: ControlPlane) -> Callable[[Operator], None]:
    """Check the invariants in the namespace of the test."""
    return lambda operator: check_invariants(team, operator, Path(control_plane.audit_log))


def until_running(team: Kubectl, kubelet: Kubelet, name: str = "tone") -> list[str]:
    team.apply(finetune(name, **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
    kubelet.end(pod, 0, prepared().to_termination_message())
    pods = kubelet.start_pods(kubelet.job("-a1"))
    kubelet.ready(*pods)
    team.wait_state(name, "running")
    return pods


def until_succeeded(team: Kubectl, kubelet: Kubelet, pods: list[str]) -> None:
    kubelet.end(pods[0], 0, trained().to_termination_message())
    kubelet.end(pods[1], 0)
    team.wait_state("tone", "succeeded")


def once(rule: Rule) -> Rule:
    """Inject a fault into the first request that matches the rule."""
    injected: list[Seen] = []

    def first(seen: Seen) -> Fault | None:
        fault = None if injected else rule(seen)
        if fault is not None:
            injected.append(seen)
        return fault

    return first


# --- T02-T04: the operator is away, Jobs vanish ---------------------------------------------------


def test_t02_what_happened_while_the_operator_was_away_is_caught_up(
    team: Kubectl, operator: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    pods = until_running(team, kubelet)
    operator.kill()
    team.apply(finetune("made-meanwhile", model="gpt5"))
    team("patch", "finetune", "tone", "--type=merge", "-p", '{"spec": {"maxRestarts": 0}}')
    kubelet.end(pods[1], 137)
    operator.start()
    assert team.wait_state("tone", "failed")["error"]["code"] == "RankCrashed"
    team.wait_state("made-meanwhile", "failed")
    holds(operator)


def test_t03_a_job_that_ended_and_went_while_the_operator_was_away_is_found_published(
    team: Kubectl, operator: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    pods = until_running(team, kubelet)
    operator.kill()
    kubelet.end(pods[0], 0, trained().to_termination_message())
    job = kubelet.job("-a1")["metadata"]["name"]
    team("delete", "job", job, "--cascade=orphan", "--wait=false")
    remove(team, job)
    operator.start()
    (lookup,) = kubelet.start_pods(kubelet.job("-lookup"))
    kubelet.end(lookup, 0, trained().to_termination_message())
    status = team.wait_state("tone", "succeeded")
    assert [item["reason"] for item in status["attempts"]] == ["Succeeded"]
    assert len([job for job in team.list("jobs") if "-a" in job["metadata"]["name"][-3:]]) == 0
    holds(operator)


def remove(team: Kubectl, job: str) -> None:
    """Remove the finalizer `orphan` by hand: there is no garbage collector."""
    if any(item["metadata"]["name"] == job for item in team.list("jobs")):
        team("patch", "job", job, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def test_t04_a_finished_job_that_is_deleted_changes_nothing(
    team: Kubectl, operator: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    until_succeeded(team, kubelet, until_running(team, kubelet))
    for job in team.list("jobs"):
        team("delete", "job", job["metadata"]["name"], "--wait=false")
        remove(team, job["metadata"]["name"])
    operator.kill()
    operator.start()
    holds(operator)
    assert team.list("jobs") == []
    assert team.status("tone")["state"] == "succeeded"


# --- T09, T13, T14, T31: single requests go wrong -------------------------------------------------

FAULTS: dict[str, Rule] = {
    "t13 a conflict on the first status write": once(
        lambda seen: Answer(409) if seen.resource == "finetunes/status" else None
    ),
    "t14 a created Job whose answer is lost": once(
        lambda seen: Cut() if (seen.method, seen.resource) == ("POST", "jobs") else None
    ),
    "t14 a status write whose answer is lost": once(
        lambda seen: Cut() if seen.resource == "finetunes/status" else None
    ),
    "t14 a Model whose answer is lost": once(
        lambda seen: Cut() if seen.resource == "models" and seen.method == "POST" else None
    ),
    "t31 Events are refused": lambda seen: Answer(403) if seen.resource == "events" else None,
    "t09 two of three writes are too many": lambda seen: (
        Answer(429, retry_after=1) if seen.number % 3 else None
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_single_requests_changes_nothing_in_the_end(
    fault: str,
    team: Kubectl,
    kubelet: Kubelet,
    proxy: FaultyProxy,
    proxied: Operator,
    holds: Callable[[Operator], None],
) -> None:
    proxy.rule = FAULTS[fault]
    proxied.start()
    team.apply(finetune("tone", **TWO_NODES))
    (pod,) = kubelet.start_pods(kubelet.job("-prepare", 60))
    kubelet.end(pod, 0, prepared().to_termination_message())
    pods = kubelet.start_pods(kubelet.job("-a1", 90))
    kubelet.ready(*pods)
    team.wait_state("tone", "running", seconds=90)
    kubelet.end(pods[0], 0, trained().to_termination_message())
    kubelet.end(pods[1], 0)
    status = team.wait_state("tone", "succeeded", seconds=90)
    proxy.rule = let_pass
    assert len(status["attempts"]) == 1
    assert len(team.list("jobs")) == 2
    assert len(team.list("models")) == 1
    holds(proxied)


def test_t14_a_service_that_is_committed_for_a_job_that_was_deleted_is_waited_for(
    team: Kubectl, tools: Path, tmp_path: Path, proxy: FaultyProxy, kubelet: Kubelet
) -> None:
    is_deleted = threading.Event()
    proxy.rule = lambda seen: (
        Late(is_deleted, 0.3)
        if (seen.method, seen.resource) == ("POST", "services") and not is_deleted.is_set()
        else None
    )
    operator = Operator(team, tools / "helm", tmp_path, proxy.url, requestTimeoutSeconds=2)
    operator.start()
    try:
        team.apply(finetune("tone", **TWO_NODES))
        (pod,) = kubelet.start_pods(kubelet.job("-prepare"))
        kubelet.end(pod, 0, prepared().to_termination_message())
        former = kubelet.job("-a1")["metadata"]["uid"]
        # The first lost answers only delay. After the third one, the Job does not wait for DNS.
        jobs = partial(team.list, "jobs")
        until(lambda: former not in [job["metadata"]["uid"] for job in jobs()], 40, operator.logs)
        assert team.list("services") == []
        is_deleted.set()
        until(lambda: "still belongs to" in operator.logs(), 60, operator.logs)
        assert team.status("tone")["state"] == "pending"
        # There is no garbage collector, whose part this is.
        team("delete", "service", team.list("services")[0]["metadata"]["name"])
        until(lambda: team.list("services"), 30, operator.logs)
        job = kubelet.job("-a1")
        (service,) = team.list("services")
        assert service["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        kubelet.ready(*kubelet.start_pods(job))
        team.wait_state("tone", "running")
    finally:
        operator.stop()


# --- T17, T18, T20: people and pods ---------------------------------------------------------------


@pytest.fixture
def sweeping(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    """An operator that looks for what no watch reports every two seconds."""
    made = Operator(team, tools / "helm", tmp_path, sweepSeconds=2)
    made.start()
    yield made
    made.stop()


def test_t17_a_deleted_service_comes_back_and_a_deleted_job_does_not(
    team: Kubectl, sweeping: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    operator = sweeping
    until_running(team, kubelet)
    (service,) = team.list("services")
    team("delete", "service", service["metadata"]["name"])
    until(lambda: team.list("services"), 20, operator.logs)
    remove_job(team, kubelet.job("-a1"))
    (lookup,) = kubelet.start_pods(kubelet.job("-lookup"))
    kubelet.end(lookup, names.EXIT_USER, failed(Reason.DATA_NOT_FOUND).to_termination_message())
    assert team.wait_state("tone", "failed")["error"]["code"] == "JobDeleted"
    holds(operator)


def remove_job(team: Kubectl, job: dict) -> None:  # type: ignore[type-arg]
    team("delete", "job", job["metadata"]["name"], "--wait=false")
    remove(team, job["metadata"]["name"])


def test_t18_an_evicted_pod_restarts_the_gang_uncounted(
    team: Kubectl, operator: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    pods = until_running(team, kubelet)
    team("patch", "finetune", "tone", "--type=merge", "-p", '{"spec": {"maxRestarts": 0}}')
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    team.patch_status("pod", pods[1], {"phase": "Failed", "conditions": [condition]})
    kubelet.ready(*kubelet.start_pods(kubelet.job("-a2")))
    status = team.wait_state("tone", "running")
    first = status["attempts"][0]
    assert (first["reason"], first["counted"], first["rank"]) == ("Evicted", False, 1)
    until(lambda: not [job for job in team.list("jobs") if is_live(job, "-a1")], 20)
    holds(operator)


def is_live(job: dict, ending: str) -> bool:  # type: ignore[type-arg]
    meta = job["metadata"]
    return meta["name"].endswith(ending) and "deletionTimestamp" not in meta


@pytest.mark.parametrize(
    ("code", "outcome", "reason", "share"),
    [
        (names.EXIT_USER, failed(Reason.BASE_MODEL_INVALID, "no weights"), "failed", None),
        (1, failed(Reason.OUT_OF_MEMORY, "rank 0 ran out of GPU memory"), "OutOfMemory", 0.5),
        (137, None, "RankCrashed", None),
    ],
)
def test_t20_what_a_pod_says_decides(
    team: Kubectl,
    operator: Operator,
    kubelet: Kubelet,
    holds: Callable[[Operator], None],
    code: int,
    outcome: object,
    reason: str,
    share: float | None,
) -> None:
    pods = until_running(team, kubelet)
    message = outcome.to_termination_message() if outcome else ""  # type: ignore[attr-defined]
    kubelet.end(pods[0], code, message)
    if reason == "failed":
        assert team.wait_state("tone", "failed")["error"]["code"] == "BaseModelInvalid"
    else:
        job = kubelet.job("-a2")
        env = job["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
        assert f'"microBatchShare":{share or 1.0}' in env
        first, second = team.wait_state("tone", "pending")["attempts"]
        assert first["reason"] == reason
        assert second.get("microBatchShare") == share
        until(lambda: not [job for job in team.list("jobs") if is_live(job, "-a1")], 20)
    holds(operator)


# --- T34: the operator's own troubles -------------------------------------------------------------


def test_t34_a_polite_end_in_the_middle_of_work_loses_nothing(
    team: Kubectl, operator: Operator, kubelet: Kubelet, holds: Callable[[Operator], None]
) -> None:
    for number in range(10):
        team.apply(finetune(f"tone-{number}", **TWO_NODES))
    assert operator.process is not None
    operator.process.send_signal(signal.SIGTERM)
    operator.process.wait(30)
    operator.process = None
    operator.start()
    until(lambda: len(team.list("jobs")) == 10, 30, operator.logs)
    for number in range(10):
        until(lambda n=number: team.status(f"tone-{n}").get("state") == "pending", 20)  # type: ignore[misc]
    holds(operator)
