"""Whole lives with one fault at each place: a crash of the operator, or a second, slow operator.

A crash comes before or after any action and status write. The second operator carries out a plan
that is up to eight decisions old: its creations are committed, its status write is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_api.names import Reason
from finetune_operator.core.plan import Plan
from tests.support.cluster import Cluster, is_finished
from tests.support.objects import World, a_finetune, a_settings, failed

ROUNDS_AT_MOST = 120
STEPS = 3  # reconciles between two changes in the cluster
OLDEST = 8

Condition = Callable[[World], bool]
Change = Callable[[World], None]


# --- what happens in a life -----------------------------------------------------------------------


def exists(ending: str, phase: str | None = None) -> Condition:
    """Whether a Job with pods exists. phase: of all of them."""

    def holds(world: World) -> bool:
        name = next((name for name in world.jobs if name.endswith(ending)), None)
        pods = world.pods.get(name, []) if name else []
        phases = {pod["status"]["phase"] for pod in pods}
        return bool(pods) and (phase is None or phases == {phase})

    return holds


def is_open(number: int) -> Condition:
    """Whether the newest recorded attempt is this one, and has no Job."""

    def holds(world: World) -> bool:
        attempts = world.status.attempts
        has_job = any(name.endswith(f"-a{number}") for name in world.jobs)
        return bool(attempts) and attempts[-1].number == number and not has_job

    return holds


def has_reason(reason: str) -> Condition:
    return lambda world: bool(world.status.reason == reason)


def edit(**changes: Any) -> Change:
    def change(world: World) -> None:
        spec = world.finetune.spec.replace(**changes)
        world.finetune = world.finetune.replace(spec=spec)

    return change


def end(ending: str, code: int, word: Any, index: int = 1) -> Change:
    def change(world: World) -> None:
        world.progress = None
        world.end_pod(ending, index, code, word)

    return change


def suspend_job(ending: str) -> Change:
    def change(world: World) -> None:
        name = world.job(ending)
        world.jobs[name]["spec"]["suspend"] = True
        world.pods[name], world.progress = [], None

    return change


def clean_up(ending: str) -> Change:
    """The pods end well, and are removed before anyone reads them."""

    def change(world: World) -> None:
        name = world.job(ending)
        world.set_condition(name, "Complete")
        world.pods[name], world.progress = [], None

    return change


def wait(seconds: int) -> Change:
    def change(world: World) -> None:
        world.now += timedelta(seconds=seconds)

    return change


@dataclass(frozen=True)
class Script:
    """A life: what happens when, in this order. Otherwise, the pods end well."""

    end: str
    events: tuple[tuple[Condition, Change], ...] = ()
    spec: dict[str, Any] = field(default_factory=dict)
    wait: int = 0


def always(world: World) -> bool:
    return True


TRAINING = exists("a1", "Running")
CRASH = (TRAINING, end("a1", 1, "boom"))
SUSPEND = (TRAINING, edit(suspend=True))
CANCEL = edit(cancel=True)
LIVES = {
    "success": Script("succeeded"),
    "dry run": Script("succeeded", spec={"dryRun": True}),
    "retry": Script("succeeded", (CRASH,), wait=10),
    "retry without a wait": Script("succeeded", (CRASH,)),
    "out of memory": Script("succeeded", ((TRAINING, end("a1", 1, failed(Reason.OUT_OF_MEMORY))),)),
    "no more restarts": Script("failed", (CRASH,), {"maxRestarts": 0}),
    "invalid data": Script(
        "failed",
        (
            (
                exists("prepare", "Running"),
                end("prepare", names.EXIT_USER, failed(Reason.INVALID_DATA), 0),
            ),
        ),
    ),
    "suspend and resume": Script(
        "succeeded", (SUSPEND, (has_reason(Reason.SUSPENDED), edit(suspend=False)))
    ),
    "preemption by the queue": Script(
        "succeeded", ((TRAINING, suspend_job("a1")),), {"queueName": "gpus"}
    ),
    "deadline": Script("failed", ((TRAINING, wait(1000)),), {"activeDeadlineSeconds": 900}),
    "pending deadline": Script(
        "failed", ((exists("prepare", "Pending"), wait(1000)),), {"pendingDeadlineSeconds": 900}
    ),
    "lost result": Script("succeeded", ((TRAINING, clean_up("a1")),)),
    "lost check": Script("succeeded", ((exists("prepare", "Running"), clean_up("prepare")),)),
    "deleted Job": Script("failed", ((TRAINING, lambda world: world.remove_job(world.job("a1"))),)),
    "cancel at once": Script("cancelled", ((always, CANCEL),)),
    "cancel during the check": Script("cancelled", ((exists("prepare"), CANCEL),)),
    "cancel before the pods": Script("cancelled", ((exists("a1", "Pending"), CANCEL),)),
    "cancel during the training": Script("cancelled", ((TRAINING, CANCEL),)),
    "cancel during the wait": Script("cancelled", (CRASH, (is_open(2), CANCEL)), wait=10),
    "cancel while suspended": Script(
        "cancelled", (SUSPEND, (has_reason(Reason.SUSPENDED), CANCEL))
    ),
}


# --- living it ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """At decision `at`: a crash after `actions`, or a second operator that is `behind`."""

    at: int = -1
    actions: int = 0
    behind: int = 0


class Run:
    """One life with one fault."""

    def __init__(self, script: Script, fault: Fault = Fault()) -> None:
        self.script, self.fault = script, fault
        resources = {"nodes": 2, "gpusPerNode": 1}
        settings = a_settings(restartSeconds=script.wait, kueueVersion="v1beta1")
        self.world = World(a_finetune(resources=resources, **script.spec), settings)
        self.cluster = Cluster(self.world)
        self.plans: list[tuple[FineTune, Plan]] = []
        self._live()

    def _live(self) -> None:
        events, seconds = list(self.script.events), 0.0
        for _ in range(ROUNDS_AT_MOST):
            if events and events[0][0](self.world):
                events.pop(0)[1](self.world)
                has_changed = True
            else:
                has_changed = self.cluster.control() | self.cluster.go_on()
            if not has_changed and seconds == float("inf"):
                break
            if not has_changed:
                self.world.now += timedelta(seconds=seconds)
            waits = [self._decide() for _ in range(STEPS)]
            seconds = waits[-1] if waits[-1] is not None else float("inf")
        else:
            raise AssertionError(f"it never ends: {self.world.status}")
        assert not events

    def _decide(self) -> float | None:
        at, before = len(self.plans), self.world.finetune
        is_hit = at == self.fault.at
        if is_hit and not self.fault.behind:
            plan = self.world.step(actions_at_most=self.fault.actions, writes=False)
        else:
            plan = self.world.step()
        self.plans.append((before, plan))
        if is_hit and self.fault.behind:
            based_on, old = self.plans[at - self.fault.behind]
            self.world.carry_out(old, based_on)
        return plan.requeue_after

    def outcome(self) -> dict[str, Any]:
        """What every run of this life has in common."""
        status = self.world.status
        events = [(item.reason, item.attempt, item.key) for item in status.events]
        assert [item.seq for item in status.events] == list(range(1, len(events) + 1))
        models = {
            item["metadata"]["name"] for item in self.world.created if item["kind"] == "Model"
        }
        return {
            "state": status.state,
            "reason": status.reason,
            "attempts": [
                (item.number, item.reason, item.micro_batch_share) for item in status.attempts
            ],
            "events": sorted(events, key=str),
            "models": models,
            "live": [name for name, job in self.world.jobs.items() if not is_finished(job)],
        }


def crashes(plain: Run) -> Iterator[Fault]:
    for at, (_, plan) in enumerate(plain.plans):
        if plan.actions or plan.status != plain.plans[at][0].status:
            yield from (Fault(at, actions) for actions in range(len(plan.actions) + 1))


def second_operators(plain: Run) -> Iterator[Fault]:
    """Plans that do nothing are left out, and so are those that were carried out at the time."""
    for at in range(len(plain.plans)):
        for behind in range(1, min(OLDEST, at) + 1):
            if plain.plans[at - behind][1].actions:
                yield Fault(at, behind=behind)


def check(name: str, faults: Callable[[Run], Iterator[Fault]], stride: int) -> int:
    plain = Run(LIVES[name])
    expected = plain.outcome()
    assert expected["state"] == LIVES[name].end
    assert expected["live"] == []
    chosen = list(faults(plain))[::stride]
    for fault in chosen:
        assert Run(LIVES[name], fault).outcome() == expected, fault
    return len(chosen)


FAULTS = {"crash": crashes, "second operator": second_operators}


@pytest.mark.parametrize("kind", FAULTS)
def test_some_faults_change_no_life(kind: str) -> None:
    for name in ("retry", "cancel during the training"):
        assert check(name, FAULTS[kind], 5) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", LIVES)
def test_a_fault_at_any_place_changes_no_life(name: str, kind: str) -> None:
    has_old_plans = (name, kind) != ("cancel at once", "second operator")
    assert (check(name, FAULTS[kind], 1) > 0) == has_old_plans
