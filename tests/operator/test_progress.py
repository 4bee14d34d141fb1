"""Once faults stop, every reachable state leads to an end or to an explained wait.

The other state machine (`test_life.py`) has the invariants of safety. This one has more faults, and
an invariant of progress: a cluster that works again, with an operator that is woken only by changes
and by the times that it asked for, ends the FineTune within a bounded number of reconciles, and
leaves no Job that works.
"""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from finetune_api import names
from finetune_api.finetune import FineTune
from finetune_operator.core.plan import Plan
from tests.operator.test_life import LIMITS, Life
from tests.support.cluster import is_finished
from tests.support.objects import prepared, trained

ROUNDS_AT_MOST = 150
PLANS_KEPT = 8  # of a second operator that is behind
UNREADABLE = {"empty": "", "cut": '{"kind": "outcome", "tra', "another program's": '{"ok": true}'}


class Progress(Life):
    """A FineTune in a cluster that also cleans up, and with requests that commit late."""

    def __init__(self) -> None:
        super().__init__()
        self.plans: list[tuple[FineTune, Plan]] = []

    def _step(self, **how: Any) -> Plan:
        self.cluster.has_published |= self._is_published()
        before = self.world.finetune
        plan = super()._step(**how)
        self.plans = [*self.plans, (before, plan)][-PLANS_KEPT:]
        return plan

    # --- the cluster -----------------------------------------------------------------------------

    @rule()
    def the_job_controller_acts(self) -> None:
        self.happened += 1
        self.cluster.control()

    def _finished(self) -> list[str]:
        return [name for name, job in self.world.jobs.items() if is_finished(job)]

    @precondition(lambda self: self._finished())
    @rule(data=st.data(), is_whole=st.booleans())
    def ended_pods_or_jobs_are_cleaned_up(self, data: st.DataObject, is_whole: bool) -> None:
        """By a cron job, the garbage collector of pods, or a TTL on Jobs."""
        name = data.draw(st.sampled_from(self._finished()))
        self.happened += 1
        self.cluster.has_published |= self._is_published()
        if is_whole:
            self.world.remove_job(name)
        else:
            self.world.pods[name] = []

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data(), how=st.sampled_from(sorted(UNREADABLE)), has_sidecar=st.booleans())
    def pods_end_well_without_a_word(
        self, data: st.DataObject, how: str, has_sidecar: bool
    ) -> None:
        name = data.draw(st.sampled_from(list(self.world.jobs)))
        for index, pod in enumerate(self.world.pods[name]):
            if pod["status"]["phase"] == "Running":
                self.happened += 1
                self.cluster.has_published |= not name.endswith("-prepare")
                self.world.end_pod(name, index, 0, UNREADABLE[how], has_sidecar=has_sidecar)

    @precondition(lambda self: self.world.jobs)
    @rule(data=st.data())
    def sidecars_outlive_main(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.world.jobs)))
        for index, pod in enumerate(self.world.pods[name]):
            if pod["status"]["phase"] == "Running":
                self.happened += 1
                outcome = prepared() if name.endswith("-prepare") else trained()
                self.cluster.has_published |= not name.endswith("-prepare")
                word = outcome if index == 0 else None
                self.world.end_pod(name, index, 0, word, has_sidecar=True)

    # --- requests --------------------------------------------------------------------------------

    @precondition(lambda self: self.world.created)
    @rule(data=st.data())
    def a_request_commits_late(self, data: st.DataObject) -> None:
        """The API server creates a Job long after the client gave up."""
        made = [item for item in self.world.created if item["kind"] == "Job"]
        manifest = data.draw(st.sampled_from(made))
        if manifest["metadata"]["name"] not in self.world.jobs:
            self.happened += 1
            self.world.add_job(manifest)

    @precondition(lambda self: self.plans)
    @rule(data=st.data())
    def a_second_operator_is_behind(self, data: st.DataObject) -> None:
        before, plan = data.draw(st.sampled_from(self.plans))
        self.happened += 1
        self.world.carry_out(plan, before)

    # --- progress --------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        wait: float | None = 0.0
        for _ in range(ROUNDS_AT_MOST):
            has_changed = self.cluster.control() | self.cluster.go_on()
            if not has_changed and wait is None:
                break
            if not has_changed:
                self.world.now += timedelta(seconds=wait or 0)
            wait = self._step().requeue_after
        status = self.world.status
        is_explained = status.reason == "Suspended" and self.world.finetune.spec.suspend
        assert status.state in names.TERMINAL_STATES or is_explained, self._describe()
        alive = [name for name, job in self.world.jobs.items() if not is_finished(job)]
        assert not alive, self._describe()

    def _describe(self) -> str:
        status = self.world.status
        jobs = {
            name: (job.get("status"), [pod["status"] for pod in self.world.pods[name]])
            for name, job in self.world.jobs.items()
        }
        return f"{status.state}: {status.reason}: {status.message}; {jobs}"


def test_every_short_life_ends_once_faults_stop() -> None:
    run_state_machine_as_test(
        Progress, settings=settings(LIMITS, max_examples=40, stateful_step_count=15)
    )


@pytest.mark.slow
def test_every_long_life_ends_once_faults_stop() -> None:
    run_state_machine_as_test(
        Progress, settings=settings(LIMITS, max_examples=200, stateful_step_count=40)
    )
