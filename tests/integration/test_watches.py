"""Watches that fail, stop, lose, or delay events, and lists of an old state.

The numbers are those of the reliability table. Tests that wait for kopf's timeouts run in parallel.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from devcluster import processes
from devcluster.controlplane import ControlPlane
from tests.integration.conftest import ROOT, Kubelet, Operator
from tests.integration.crowds import Crowd
from tests.integration.invariants import check_invariants
from tests.support.kubectl import Kubectl, RefusedError, finetune, until
from tests.support.proxy import (
    Answer,
    Delay,
    Drop,
    Event,
    EventRule,
    FaultyProxy,
    Mute,
    Old,
    Repeat,
    Seen,
    let_pass,
)

pytestmark = pytest.mark.integration

FAULT_SECONDS = 70  # kopf gives a watch up after 54 s of errors, and a silent one after 70 s


# --- T11, T12: single events and lists ------------------------------------------------------------


def late_twice_or_never(chance: random.Random, hit: Counter[str]) -> EventRule:
    """Most events arrive in another order, and some twice or never."""

    def rule(event: Event) -> Drop | Delay | Repeat | None:
        fault = chance.choice([None, Drop(), Delay(0.2), Delay(1), Delay(3), Repeat(1), Repeat(4)])
        if event.type == "BOOKMARK" or fault is None:
            return None
        hit[type(fault).__name__] += 1
        return fault

    return rule


def test_events_in_any_order_twice_or_never_decide_nothing_on_what_was_before_a_write(
    team: Kubectl,
    tools: Path,
    tmp_path: Path,
    proxy: FaultyProxy,
    kubelet: Kubelet,
    control_plane: ControlPlane,
) -> None:
    hit: Counter[str] = Counter()
    proxy.event_rule = late_twice_or_never(random.Random(7), hit)
    operator = Operator(team, tools / "helm", tmp_path, proxy.url, sweepSeconds=4)
    operator.start()
    try:
        crowd = Crowd(team, kubelet, *(f"tone-{number}" for number in range(8)))
        statuses = crowd.live(operator.logs)
        assert min(hit[name] for name in ("Drop", "Delay", "Repeat")) >= 8, hit
        assert {len(status["attempts"]) for status in statuses.values()} == {1}
        assert len(team.list("jobs")) == 2 * len(statuses)
        # A decision on an older FineTune would be refused: its write tests the resource version.
        written = [status for seen, status in proxy.answered if seen.resource == "finetunes/status"]
        assert set(written) == {200}
        made = [status for seen, status in proxy.answered if seen.resource in {"jobs", "services"}]
        assert set(made) == {201}, "nothing is created that exists"
        check_invariants(team, operator, Path(control_plane.audit_log))
    finally:
        operator.stop()


def test_a_late_job_of_a_cancelled_finetune_whose_event_got_lost_is_deleted_by_the_sweep(
    team: Kubectl, tools: Path, tmp_path: Path, proxy: FaultyProxy, kubelet: Kubelet
) -> None:
    operator = Operator(team, tools / "helm", tmp_path, proxy.url, sweepSeconds=2)
    operator.start()
    try:
        crowd = Crowd(team, kubelet, "tone")
        crowd.create()
        (job,) = crowd.jobs("-prepare").values()
        team("patch", "finetune", "tone", "--type=merge", "-p", '{"spec": {"cancel": true}}')
        crowd.wait("cancelled")
        until(lambda: not team.list("jobs"), 20, operator.logs)
        lost: list[Event] = []

        def lose_jobs(event: Event) -> Drop | None:
            if event.resource != "jobs":
                return None
            lost.append(event)
            return Drop()

        proxy.event_rule = lose_jobs
        template = job["spec"]["template"]
        team.apply(
            {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": {
                    key: job["metadata"][key] for key in ("name", "labels", "ownerReferences")
                },
                "spec": {"template": {"metadata": {}, "spec": template["spec"]}},
            }
        )
        until(lambda: lost, 20)
        until(lambda: not team.list("jobs"), 30, operator.logs)
    finally:
        operator.stop()


def test_t12_lists_that_are_older_than_the_status_end_nothing_and_make_nothing_twice(
    team: Kubectl,
    proxy: FaultyProxy,
    proxied: Operator,
    kubelet: Kubelet,
    control_plane: ControlPlane,
) -> None:
    proxied.start()
    crowd = Crowd(team, kubelet, "tone")
    crowd.create()
    crowd.prepare()
    crowd.train()
    team.wait_state("tone", "running")

    # As after a failover to a replica that lags: there is no Job yet, say all lists of children.
    stale: list[Seen] = []

    def old_lists(seen: Seen) -> Old | None:
        if not (seen.is_list and seen.resource in {"jobs", "pods", "services"}):
            return None
        stale.append(seen)
        return Old()

    proxy.rule = old_lists
    proxied.kill()
    proxied.start()
    # The lists of the watches, and those of the first look after the start.
    needed = {"jobs": 2, "pods": 2}
    until(lambda: Counter(seen.resource for seen in stale) >= Counter(needed), 30, proxied.logs)
    time.sleep(3)  # several looks, while the watches catch up
    assert team.status("tone")["state"] == "running"
    proxy.rule = let_pass
    crowd.publish()
    (status,) = crowd.wait("succeeded", proxied.logs).values()
    assert len(status["attempts"]) == 1
    assert len(team.list("jobs")) == 2
    check_invariants(team, proxied, Path(control_plane.audit_log))


# --- T06: the API server goes and comes back ------------------------------------------------------


@pytest.fixture
def mortal() -> Iterator[ControlPlane]:
    """A control plane that a test can kill."""
    with ControlPlane() as made:
        admin = Kubectl(str(made.kubectl), str(made.kubeconfig))
        for name in ("finetunes.yaml", "models.yaml"):
            admin.apply_file(ROOT / "crds" / name)
        crds = ("crd/finetunes.finetune.dev", "crd/models.finetune.dev")
        admin("wait", "--for=condition=Established", *crds)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}}
        admin.apply(namespace)
        yield made


def kill_apiserver(plane: ControlPlane) -> Callable[[], None]:
    """Kill it as a crash would, and return a function that starts it again."""
    (server,) = [item for item in plane._processes if item.name == "kube-apiserver"]
    command = Path(f"/proc/{server.pid}/cmdline").read_bytes().split(b"\0")[:-1]
    processes.kill([server])

    def start() -> None:
        words = [os.fsdecode(word) for word in command]
        log = plane.audit_log.with_name("apiserver-again.log")
        plane._processes.append(processes.start(server.name, words, log, ends_with_us=True))

    return start


def test_t06_a_new_api_server_that_has_forgotten_the_past_is_caught_up_with(
    mortal: ControlPlane, tools: Path, tmp_path: Path
) -> None:
    team = Kubectl(str(mortal.kubectl), str(mortal.kubeconfig), "team")
    gone: list[Event] = []

    def note_gone(event: Event) -> None:
        if event.type == "ERROR" and event.object.get("code") == 410:
            gone.append(event)

    with FaultyProxy(mortal.url, mortal.authority) as proxy:
        proxy.event_rule = note_gone
        operator = Operator(team, tools / "helm", tmp_path, proxy.url)
        operator.start()
        try:
            crowd = Crowd(team, Kubelet(team), "tone")
            crowd.create()
            crowd.prepare()
            crowd.train()
            team.wait_state("tone", "running")
            assert operator.process is not None
            operator.process.send_signal(signal.SIGSTOP)
            crowd.publish()
            team.apply(finetune("made-meanwhile", model="gpt5"))
            start = kill_apiserver(mortal)
            operator.process.send_signal(signal.SIGCONT)
            time.sleep(3)  # it meets nobody
            start()
            until(lambda: _answers(team), 60)
            assert crowd.wait("succeeded", operator.logs)["tone"]["attempts"][0]["number"] == 1
            team.wait_state("made-meanwhile", "failed")
            assert operator.process.poll() is None
            assert operator.fetch(operator.port, "/healthz") == "ok"
            assert len(team.list("jobs")) == 2
            until(lambda: gone, 30, operator.logs)
            check_invariants(team, operator, mortal.audit_log)
        finally:
            operator.stop()


def _answers(team: Kubectl) -> bool:
    try:
        return bool(team("get", "--raw", "/readyz"))
    except RefusedError:
        return False


# --- T07, T08, T10: watches that fail for longer than kopf's patience -----------------------------


class Patient:
    """An operator with its own namespace, proxy, and simulated kubelet."""

    def __init__(self, admin: Kubectl, name: str, operator: Operator, proxy: FaultyProxy) -> None:
        self.team = admin.within(name)
        self.operator = operator
        self.proxy = proxy
        self.restarts = 0

    def is_served(self) -> bool:
        """A FineTune that was created during the fault is reconciled, even after a restart."""
        self.live_on()
        return self.team.status("tone").get("state") == "failed"

    def live_on(self) -> None:
        operator = self.operator
        is_dead = operator.process is None or operator.process.poll() is not None
        try:
            is_well = not is_dead and operator.fetch(operator.port, "/healthz") == "ok"
        except OSError:  # HTTP 500, too
            is_well = False
        if not is_well:
            self.restarts += 1
            operator.stop()
            operator.start()


@pytest.fixture
def admit(
    admin: Kubectl, tools: Path, tmp_path: Path, control_plane: ControlPlane
) -> Iterator[Callable[[str], Patient]]:
    with ExitStack() as stack:

        def make(name: str) -> Patient:
            admin.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
            proxy = stack.enter_context(FaultyProxy(control_plane.url, control_plane.authority))
            operator = Operator(admin.within(name), tools / "helm", tmp_path / name, proxy.url)
            stack.callback(operator.stop)
            operator.start()
            return Patient(admin, name, operator, proxy)

        yield make


@pytest.mark.slow
def test_t07_t08_t10_a_namespaced_operator_never_goes_on_without_its_watches(
    admit: Callable[[str], Patient], control_plane: ControlPlane
) -> None:
    unwell, forbidden, silent = (admit(name) for name in ("unwell", "forbidden", "silent"))

    def only_the_watch_of_finetunes(seen: Seen) -> Answer | None:
        is_kopfs = seen.is_watch or seen.is_list
        return Answer(503) if is_kopfs and seen.resource == "finetunes" else None

    began = time.monotonic()
    unwell.proxy.rule = only_the_watch_of_finetunes
    binding: dict[str, Any] = forbidden.team.get("rolebinding", "finetune-operator")
    forbidden.team("delete", "rolebinding", "finetune-operator")
    silent.proxy.rule = lambda seen: Mute() if seen.is_watch and seen.opened < began else None
    for patient in (unwell, forbidden):
        patient.proxy.break_watches()
    for patient in (unwell, forbidden, silent):
        patient.team.apply(finetune("tone", model="gpt5"))
    time.sleep(FAULT_SECONDS)

    unwell.proxy.rule = let_pass
    meta = {key: binding["metadata"][key] for key in ("name", "namespace")}
    forbidden.team.apply({**binding, "metadata": meta})
    for patient in (unwell, forbidden, silent):
        until(patient.is_served, 120, patient.operator.logs, every=2)
        team, operator = patient.team, patient.operator
        check_invariants(team, operator, Path(control_plane.audit_log))
    print({patient.team.namespace: patient.restarts for patient in (unwell, forbidden, silent)})
    assert silent.restarts == 0
