"""The invariants of decisions hold in any order of edits, failures, crashes, and deletions."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from finetune_api import names
from finetune_api.names import Reason
from finetune_operator.core.attempts.training import ROOT_CAUSE_POLL_SECONDS
from finetune_operator.core.plan import Create, DeleteJob, Plan
from tests.support.cluster import Cluster, is_finished
from tests.support.objects import World, a_finetune, a_settings, failed, prepared, progress, trained

WRITES_AT_MOST = 2  # status writes after one change in the cluster
CREATIONS_AT_MOST = 2  # an object and its Service

ENDS: dict[str, tuple[int, Any]] = {
    "crash": (1, "boom"),
    "killed": (137, ""),
    "out of memory": (1, failed(Reason.OUT_OF_MEMORY)),
    "out of host memory": (1, failed(Reason.OUT_OF_MEMORY, exhausted_memory="host")),
    "user's error": (names.EXIT_USER, failed(Reason.BASE_MODEL_INVALID)),
    "stopped": (names.EXIT_PREEMPTED, failed(Reason.POD_LOST, exit_code=names.EXIT_PREEMPTED)),
    "storage away": (names.EXIT_UNAVAILABLE, failed(Reason.S3_UNAVAILABLE)),
    "well": (0, None),
    "published": (0, trained()),
}
DISRUPTION = {
    "phase": "Failed",
    "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    ],
}


class Life(RuleBasedStateMachine):
    """A FineTune in a changing cluster, with an operator that may crash at any request."""

    @initialize(
        queue=st.sampled_from([None, "gpus"]),
        restarts=st.integers(0, 2),
        ttl=st.sampled_from([None, 60]),
        deadline=st.sampled_from([None, None, None, 1000]),
        begin=st.sampled_from(["new", "trains", "runs", "runs"]),
        wait=st.sampled_from([0, 10]),
        memory=st.sampled_from([None, 130.0]),
    )
    def start(
        self,
        queue: str | None,
        restarts: int,
        ttl: int | None,
        deadline: int | None,
        begin: str,
        wait: int,
        memory: float | None,
    ) -> None:
        spec = {
            "maxRestarts": restarts,
            "resources": {"nodes": 2, "gpusPerNode": 1},
            **({"queueName": queue} if queue else {}),
            **({"ttlSecondsAfterFinished": ttl} if ttl else {}),
            **({"pendingDeadlineSeconds": deadline} if deadline else {}),
        }
        self.world = World(
            a_finetune(**spec), a_settings(kueueVersion="v1beta1", restartSeconds=wait)
        )
        self.ended: Any = None  # the status when it became terminal
        self.made_when_ended = 0
        self.happened = 1  # changes since the operator last settled
        self.check = prepared(memory_per_pod_gib=memory)
        self.cluster = Cluster(self.world, memory_per_pod_gib=memory)
        if begin != "new":
            self.world.until_training(memory_per_pod_gib=memory)
        if begin == "runs":
            self.world.admit("a1")
            self.world.ready_pods("a1")
            self.world.progress = progress()
            self.world.settle()

    # --- the operator ----------------------------------------------------------------------------

    def _step(self, **how: Any) -> Plan:
        world = self.world
        before, published = world.status, self._is_published()
        ends = published and not world.finetune.spec.cancel and before.resolved is not None
        plan = world.step(**how)
        assert len([item for item in plan.actions if isinstance(item, Create)]) <= 1
        if ends and before.state not in names.TERMINAL_STATES:
            assert plan.status.state == "succeeded"
        if before.state in names.TERMINAL_STATES:
            assert world.status == before
            assert all(isinstance(action, DeleteJob) for action in plan.actions)
        elif world.status.state in names.TERMINAL_STATES:
            self.ended, self.made_when_ended = world.status, len(world.created)
        return plan

    def _is_published(self) -> bool:
        """Whether rank 0 of an existing attempt has published the model."""
        return any(
            '"trained"' in str(pod["status"])
            for name, pods in self.world.pods.items()
            for pod in pods
            if name in self.world.jobs
        )

    @rule()
    def reconcile_until_nothing_changes(self) -> None:
        world = self.world
        writes, created = world.status_writes, len(world.created)
        former: Plan | None = None
        for _ in range(10):
            before = (world.finetune, len(world.created), len(world.deleted), len(world.services))
            plan = self._step()
            if before == (
                world.finetune,
                len(world.created),
                len(world.deleted),
                len(world.services),
            ):
                break
            assert former is None or _wakes_itself(former)
            former = plan
        else:
            raise AssertionError("it never settles")
        happened = (
            self.happened + 1
        )  # time itself is a change: a deadline, a wait for the root cause
        assert world.status_writes - writes <= happened * WRITES_AT_MOST
        assert len(world.created) - created <= happened * CREATIONS_AT_MOST
        if world.status.state not in names.TERMINAL_STATES:  # sidecars have a moment after the end
            assert len(self._train_jobs()) <= 1
        if world.status.state == "failed":
            assert not self._working()
        self.happened = 0

    @rule(actions=st.sampled_from([0, 1, 1, 2, 3, 3]), writes=st.booleans())
    def the_operator_dies(self, actions: int, writes: bool) -> None:
        """It crashes during its actions, or after them and before the status write."""
        self.happened += 1
        self._step(actions_at_most=actions, writes=writes and actions == 3)

    # --- the cluster -----------------------------------------------------------------------------

    def _train_jobs(self) -> list[str]:
        return [name for name in self.world.jobs if not name.endswith(("-prepare", "-lookup"))]

    def _working(self) -> list[str]:
        """Attempts whose pods all run: only the operator ends them."""
        return [
            name
            for name in self._train_jobs()
            if self.world.pods[name]
            and not is_finished(self.world.jobs[name])
            and not any(pod["status"]["phase"] == "Failed" for pod in self.world.pods[name])
        ]

    def _ending(self, data: st.DataObject) -> str:
        name = data.draw(st.sampled_from(self._train_jobs()))
        return name[name.rindex("-") + 1 :]

    @precondition(lambda self: any(name.endswith("-prepare") for name in self.world.jobs))
    @rule(outcome=st.sampled_from(["good", "bad data", "crash"]))
    def the_check_ends(self, outcome: str) -> None:
        ends = {
            "good": (0, self.check),
            "bad data": (names.EXIT_USER, failed(Reason.INVALID_DATA)),
            "crash": (1, failed(Reason.INTERNAL)),
        }
        pods = self._pods("prepare")
        if not pods or pods[0]["status"]["phase"] in {"Failed", "Succeeded"}:
            return
        self.happened += 1
        self.world.end_pod("prepare", 0, *ends[outcome])

    @precondition(lambda self: self._train_jobs())
    @rule(data=st.data())
    def pods_get_ready(self, data: st.DataObject) -> None:
        self.happened += 1
        ending = self._ending(data)
        if self.world.jobs[self.world.job(ending)]["spec"].get("suspend"):
            self.world.admit(ending)
        if all(pod["status"]["phase"] == "Pending" for pod in self._pods(ending)):
            self.world.ready_pods(ending)
        self.world.progress = progress(attempt=int(ending[1:]), resumed_from_step=5)

    def _pods(self, ending: str) -> list[dict[str, Any]]:
        return self.world.pods[self.world.job(ending)]

    @precondition(lambda self: self._train_jobs())
    @rule(
        data=st.data(), index=st.integers(0, 1), how=st.sampled_from([*sorted(ENDS), "published"])
    )
    def a_pod_ends(self, data: st.DataObject, index: int, how: str) -> None:
        ending = self._ending(data)
        pods = self._pods(ending)
        if index >= len(pods) or pods[index]["status"]["phase"] in {"Failed", "Succeeded"}:
            return
        self.happened += 1
        self.world.progress = None
        code, outcome = ENDS[how]
        self.world.end_pod(ending, index, code, outcome if index == 0 or code else None)

    @precondition(lambda self: self._train_jobs())
    @rule(data=st.data(), index=st.integers(0, 1), is_evicted=st.booleans())
    def a_pod_is_taken_away(self, data: st.DataObject, index: int, is_evicted: bool) -> None:
        pods = self._pods(self._ending(data))
        if index >= len(pods) or pods[index]["status"]["phase"] in {"Failed", "Succeeded"}:
            return
        self.happened += 1
        self.world.progress = None
        pods[index]["metadata"]["deletionTimestamp"] = "2026-11-21T12:05:00Z"
        if is_evicted:
            pods[index]["status"] = dict(DISRUPTION)

    @precondition(lambda self: self._train_jobs())
    @rule(data=st.data(), what=st.sampled_from(["Service", "Service", "Job", "cancel"]))
    def a_user_deletes_or_cancels(self, data: st.DataObject, what: str) -> None:
        """A user deletes a Job or a Service, or cancels. A Job without a record is created again.

        A planned Job counts as recorded once the Job before it is gone and its pods were seen.
        """
        ending = self._ending(data)
        name = self.world.job(ending)
        recorded = {item.number: item for item in self.world.status.attempts}
        former = recorded.get(int(ending[1:]) - 1)
        is_marked = any(other.endswith(f"-a{int(ending[1:]) - 1}") for other in self.world.jobs)
        is_unseen = former and self.world.status.reason == Reason.RESTARTING
        is_recorded = int(ending[1:]) in recorded and not is_unseen and not (former and is_marked)
        if what == "cancel":
            return self._edit(cancel=True)
        self.happened += 1
        self.world.services.discard(name)
        if what == "Job" and is_recorded:
            self.world.jobs.pop(name)
            self.world.pods.pop(name)

    @precondition(lambda self: self.world.finetune.spec.queue_name and self._train_jobs())
    @rule(data=st.data())
    def the_queue_takes_the_pods_back(self, data: st.DataObject) -> None:
        self.happened += 1
        name = self.world.job(self._ending(data))
        self.world.jobs[name]["spec"]["suspend"] = True
        if not any(pod["status"]["phase"] == "Succeeded" for pod in self.world.pods[name]):
            self.world.pods[name] = []
        self.world.progress = None

    # --- users and time --------------------------------------------------------------------------

    def _edit(self, **changes: Any) -> None:
        self.happened += 1
        finetune = self.world.finetune
        self.world.finetune = finetune.replace(spec=finetune.spec.replace(**changes))

    @rule(on=st.booleans())
    def edit_suspend(self, on: bool) -> None:
        self._edit(suspend=on)

    @rule(limit=st.integers(0, 4))
    def edit_restarts(self, limit: int) -> None:
        self._edit(max_restarts=limit)

    @rule(seconds=st.sampled_from([None, None, 30, 100_000, 100_000]))
    def edit_deadline(self, seconds: int | None) -> None:
        self._edit(active_deadline_seconds=seconds)

    @rule(seconds=st.sampled_from([15, 120, 2000]))
    def time_passes(self, seconds: int) -> None:
        self.happened += 1
        self.world.now += timedelta(seconds=seconds)

    # --- invariants ---------------------------------------------------------------------------

    @invariant()
    def an_end_is_never_changed_and_nothing_begins_after_it(self) -> None:
        if self.ended is not None:
            assert self.world.status == self.ended
            assert len(self.world.created) == self.made_when_ended

    @invariant()
    def each_attempt_has_one_job_and_at_most_one_is_open(self) -> None:
        made = [
            manifest["metadata"]["name"]
            for manifest in self.world.created
            if manifest["kind"] == "Job"
            and manifest["metadata"]["labels"][names.LABEL_COMPONENT] == names.COMPONENT_TRAIN
        ]
        assert len(made) == len(set(made))
        attempts = self.world.status.attempts
        assert [item.number for item in attempts] == list(range(1, len(attempts) + 1))
        assert all(item.ended_at for item in attempts[:-1])
        assert all(item.reason in names.END_REASONS for item in attempts if item.ended_at)
        if self.world.status.state in names.TERMINAL_STATES:
            assert all(item.ended_at for item in attempts)

    @invariant()
    def what_it_says_fits_the_schema(self) -> None:
        status = self.world.status
        assert type(status).model_validate(status.to_dict()) == status


def _wakes_itself(plan: Plan) -> bool:
    """Our own status write causes no reconcile; the Job that a queue suspends does."""
    held = any(
        isinstance(action, Create) and action.manifest["spec"].get("suspend")
        for action in plan.actions
    )
    return held or (
        plan.requeue_after is not None and plan.requeue_after <= ROOT_CAUSE_POLL_SECONDS
    )


LIMITS = settings(suppress_health_check=list(HealthCheck))


def test_the_invariants_hold_in_any_short_life() -> None:
    run_state_machine_as_test(
        Life, settings=settings(LIMITS, max_examples=40, stateful_step_count=20)
    )


@pytest.mark.slow
def test_the_invariants_hold_in_any_long_life() -> None:
    run_state_machine_as_test(
        Life, settings=settings(LIMITS, max_examples=500, stateful_step_count=50)
    )
