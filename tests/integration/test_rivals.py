"""Two operators in one namespace, and two FineTunes with one model name.

There is no leader election: the chart runs one replica, and two must not harm each other. The
numbers are those of the reliability table.
"""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from devcluster.controlplane import ControlPlane
from tests.integration.conftest import Kubelet, Operator
from tests.integration.crowds import Crowd
from tests.integration.invariants import check_invariants
from tests.support.kubectl import Kubectl, until
from tests.support.objects import trained
from tests.support.proxy import FaultyProxy, Hold, Seen, let_pass

pytestmark = pytest.mark.integration

TAKEOVER_SECONDS = 30


@pytest.fixture
def second(team: Kubectl, tools: Path, tmp_path: Path) -> Iterator[Operator]:
    """Another replica with the same permissions. It is not started yet."""
    made = Operator(team, tools / "helm", tmp_path / "second")
    yield made
    made.stop()


@contextmanager
def states_of(team: Kubectl, path: Path) -> Iterator[list[str]]:
    """The states of the only FineTune of a namespace in order, from `kubectl get -w`.

    The list is filled at the end.
    """
    command = [team.binary, "--kubeconfig", team.kubeconfig, "-n", team.namespace]
    command += ["get", "finetunes", "-w", "-o", 'jsonpath={.status.state}{"\\n"}']
    states: list[str] = []
    with path.open("wb") as out:
        watch = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        try:
            yield states
        finally:
            watch.terminate()
            watch.wait()
    states += [state for state, _ in groupby(path.read_text().split()) if state]


def send(operator: Operator, what: signal.Signals) -> None:
    assert operator.process is not None
    operator.process.send_signal(what)


def test_t05_two_replicas_make_one_job_and_either_goes_on_alone(
    team: Kubectl,
    operator: Operator,
    second: Operator,
    kubelet: Kubelet,
    tmp_path: Path,
    control_plane: ControlPlane,
) -> None:
    second.start()
    crowd = Crowd(team, kubelet, "tone")
    crowd.create()
    with states_of(team, tmp_path / "states") as states:
        crowd.prepare()
        crowd.train()
        team.wait_state("tone", "running")
        operator.kill()
        crowd.publish()
        status = team.wait_state("tone", "succeeded", seconds=TAKEOVER_SECONDS)
        operator.start()  # it finds the end recorded
        check_invariants(team, second, Path(control_plane.audit_log))
    assert states == ["pending", "running", "succeeded"]
    assert len(status["attempts"]) == 1
    assert len(team.list("jobs")) == 2
    assert len(team.list("models")) == 1
    texts = [event["message"] for event in status["events"]]
    assert len(texts) == len(set(texts))


def test_t05_an_operator_that_wakes_up_late_does_not_undo_what_the_other_one_wrote(
    team: Kubectl,
    proxy: FaultyProxy,
    proxied: Operator,
    second: Operator,
    kubelet: Kubelet,
    tmp_path: Path,
    control_plane: ControlPlane,
) -> None:
    proxied.start()
    crowd = Crowd(team, kubelet, "tone")
    crowd.create()
    crowd.prepare()
    crowd.jobs("-a1")
    until(lambda: team.status("tone").get("attempts"), 20)
    late: list[Seen] = []
    released = threading.Event()

    def hold_the_status(seen: Seen) -> Hold | None:
        if seen.resource != "finetunes/status":
            return None
        late.append(seen)
        return Hold(released)

    proxy.rule = hold_the_status
    crowd.train()
    until(lambda: late, 20, proxied.logs)  # "running" is on its way, and it stays there
    send(proxied, signal.SIGSTOP)
    with states_of(team, tmp_path / "states") as states:
        second.start()
        team.wait_state("tone", "running", seconds=TAKEOVER_SECONDS)
        crowd.publish()
        status = team.wait_state("tone", "succeeded")
        released.set()
        send(proxied, signal.SIGCONT)
        proxy.rule = let_pass
        until(lambda: answers(proxy, late[0]), 20, proxied.logs)
        assert answers(proxy, late[0]) == [422]  # the test of its version does not hold
        check_invariants(team, second, Path(control_plane.audit_log))
    assert states == ["pending", "running", "succeeded"]
    assert team.status("tone") == status
    assert len(team.list("jobs")) == 2


def answers(proxy: FaultyProxy, write: Seen) -> list[int]:
    """Wait for the answers of the API server to this write."""
    return [code for seen, code in proxy.answered if seen is write]


def test_of_two_fine_tunes_that_publish_one_name_one_has_the_model_and_the_other_says_so(
    team: Kubectl, operator: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    crowd = Crowd(team, kubelet, "left", "right")
    crowd.create()
    crowd.prepare()
    crowd.train()
    crowd.wait("running")
    end = trained().to_termination_message()  # the same name, given in the same second
    for job in crowd.jobs("-a1").values():
        kubelet.end(f"{job['metadata']['name']}-0", 0, end)
    until(lambda: all(_has_ended(team, name) for name in crowd.finetunes), 30, operator.logs)
    by_state = {team.status(name)["state"]: name for name in crowd.finetunes}
    assert set(by_state) == {"succeeded", "failed"}
    (model,) = team.list("models")
    assert model["spec"]["fineTune"]["name"] == by_state["succeeded"]
    loser = team.status(by_state["failed"])
    assert loser["error"]["code"] == "ForeignObject"
    assert f"of FineTune {by_state['succeeded']}" in loser["error"]["message"]
    assert loser["modelUri"] in loser["error"]["message"]
    check_invariants(team, operator, Path(control_plane.audit_log))


def _has_ended(team: Kubectl, name: str) -> bool:
    return team.status(name).get("state") in {"succeeded", "failed"}


@pytest.mark.parametrize("dies", [False, True])
def test_a_crash_waits_for_its_next_attempt_whether_the_operator_lives_or_not(
    dies: bool,
    team: Kubectl,
    tools: Path,
    tmp_path: Path,
    kubelet: Kubelet,
    control_plane: ControlPlane,
) -> None:
    operator = Operator(team, tools / "helm", tmp_path, restartSeconds=6)
    operator.start()
    try:
        crowd = Crowd(team, kubelet, "tone")
        crowd.create()
        crowd.prepare()
        crowd.train()
        team.wait_state("tone", "running")
        (job,) = crowd.jobs("-a1").values()
        kubelet.end(f"{job['metadata']['name']}-1", 137)
        until(lambda: len(team.status("tone").get("attempts", [])) == 2, 20, operator.logs)
        status = team.status("tone")
        starts_at = status["attempts"][1]["startedAt"]
        assert status["message"].startswith(f"attempt 2 starts at {starts_at}: rank 1 was killed")
        if dies:
            operator.kill()
            operator.start()
        second = kubelet.job("-a2")
        assert second["metadata"]["creationTimestamp"] >= starts_at
        crowd.train("-a2")
        attempts = team.wait_state("tone", "running")["attempts"]
        assert attempts[1]["startedAt"] == starts_at
        check_invariants(team, operator, Path(control_plane.audit_log))
    finally:
        operator.stop()
