"""A FineTune whose requests the API server refuses: explained, in time, and without loss."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from finetune_api import names
from finetune_api.names import Reason
from finetune_operator.core.decide import decide
from finetune_operator.core.plan import Create, CreateService, DeleteJob, Plan
from finetune_operator.core.refusals import Refusal
from finetune_operator.core.refused_plan import refused_plan, unread_plan
from tests.support.objects import World, a_finetune, a_settings, failed, prepared, trained

NO_QUOTA = "exceeded quota: q, requested: count/x=1, used: count/x=1, limited: count/x=1"
Rule = Callable[[str, str, str], bool]  # verb, kind, name


class StrictWorld(World):
    """A world whose API server refuses the requests that a rule selects."""

    def __init__(self, **spec: Any) -> None:
        super().__init__(a_finetune(**spec))
        self.refuses: Rule = lambda *_: False
        self.message = f'x "y" is forbidden: {NO_QUOTA}'
        self.refused: list[tuple[str, str]] = []

    def step(self, **_: Any) -> Plan:
        observed = self.observe()
        plan = decide(observed, self.settings, self.now)
        refusal = None
        allowed = []
        for action in plan.actions:
            refusal = self._ask(action)
            if refusal is not None:
                break
            allowed.append(action)
        if refusal is not None:
            self.refused.append((refusal.verb, refusal.kind))
            plan = refused_plan(observed, plan, refusal, self.now)
            if refusal.kind == "Service":  # as kube/act.py
                allowed = [item for item in allowed if not isinstance(item, Create)]
            allowed += [item for item in plan.actions if self._ask(item) is None]
        for action in allowed:
            if isinstance(action, Create):
                self._create(action.manifest)
            elif isinstance(action, DeleteJob):
                self.jobs.pop(action.name, None)
                self.pods.pop(action.name, None)
                self.deleted.append(action.name)
            else:
                self.services.add(action.job_name)
        if plan.status.to_dict() != self.status.to_dict():
            self.status_writes += 1
            self.finetune = self.finetune.replace(status=plan.status)
        self.now += timedelta(seconds=1)
        return plan

    def _ask(self, action: Any) -> Refusal | None:
        verb, model = "create", None
        if isinstance(action, Create):
            kind, name = action.manifest["kind"], action.manifest["metadata"]["name"]
            if kind == "Model":
                model = action.manifest["spec"]["id"], action.manifest["spec"]["uri"]
        elif isinstance(action, CreateService):
            kind, name = "Service", action.job_name
        else:
            verb, kind, name = "delete", "Job", action.name
        is_refused = self.refuses(verb, kind, name)
        return Refusal(verb, kind, name, 403, self.message, (), model) if is_refused else None


def creations_of(kind: str, ending: str = "") -> Rule:
    return lambda verb, found, name: (verb, found) == ("create", kind) and name.endswith(ending)


def until_published(world: StrictWorld) -> None:
    world.until_running()
    world.end_pod("a1", 0, 0, trained())
    world.end_pod("a1", 1, 0, None)
    world.progress = None


STEPS: dict[str, tuple[Rule, Callable[[StrictWorld], Any], str]] = {
    "prepare Job": (creations_of("Job", "-prepare"), lambda world: None, "validating"),
    "train Job": (
        creations_of("Job", "-a1"),
        lambda world: (world.settle(), world.end_pod("prepare", 0, 0, prepared())),
        "queued",
    ),
    "Service": (
        creations_of("Service"),
        lambda world: (world.settle(), world.end_pod("prepare", 0, 0, prepared())),
        "queued",
    ),
    "Model": (creations_of("Model"), until_published, "publishing"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_refusal_is_explained_costs_one_write_and_recovers(step: str) -> None:
    rule, until, stage = STEPS[step]
    world = StrictWorld()
    until(world)
    world.refuses = rule
    world.settle()
    writes = world.status_writes
    for _ in range(20):
        plan = world.step()
        assert plan.is_refused
    assert world.status_writes == writes
    status = world.status
    assert (status.state, status.stage) == ("pending", stage)
    assert status.reason == Reason.QUOTA_EXCEEDED
    assert NO_QUOTA in status.message
    assert status.started_at == "2026-11-21T12:00:00Z"
    assert [event.reason for event in status.events].count("Created") == 1
    assert not [name for name in world.jobs if name.endswith("-a1")] or step == "Model"
    if step == "Model":
        assert trained().trained.model_uri in status.message  # type: ignore[union-attr]
        assert trained().trained.fine_tuned_model in status.message  # type: ignore[union-attr]
    world.refuses = lambda *_: False
    if step == "prepare Job":
        world.settle()
        world.end_pod("prepare", 0, 0, prepared())
    if step != "Model":
        world.settle()
        assert world.status.reason == Reason.STARTING
        until_published_from_start(world)
    world.settle()
    assert world.status.state == "succeeded"
    assert len(world.status.attempts) == 1


def until_published_from_start(world: StrictWorld) -> None:
    world.ready_pods("a1")
    world.settle()
    world.end_pod("a1", 0, 0, trained())
    world.end_pod("a1", 1, 0, None)


@pytest.mark.parametrize("step", STEPS)
def test_the_pending_deadline_ends_a_refused_finetune(step: str) -> None:
    rule, until, _ = STEPS[step]
    world = StrictWorld(pendingDeadlineSeconds=600)
    until(world)
    world.refuses = rule
    world.settle()
    assert world.step().requeue_after <= 601  # type: ignore[operator]
    world.now += timedelta(seconds=700)
    world.settle()
    status = world.status
    assert (status.state, status.error.code) == ("failed", Reason.DEADLINE_EXCEEDED)
    assert NO_QUOTA in status.error.message
    if step == "Model":
        assert status.model_uri == trained().trained.model_uri  # type: ignore[union-attr]
        assert status.attempts[0].reason == Reason.SUCCEEDED


def test_a_training_deadline_does_not_end_a_published_training() -> None:
    world = StrictWorld(activeDeadlineSeconds=600)
    until_published(world)
    world.refuses = creations_of("Model")
    world.settle()
    world.now += timedelta(seconds=700)
    world.settle()
    assert world.status.state == "pending"
    world.refuses = lambda *_: False
    world.settle()
    assert world.status.state == "succeeded"


def test_the_gpu_time_ends_with_the_pods_and_not_with_the_refusal_of_the_model() -> None:
    world = StrictWorld(resources={"nodes": 2, "gpusPerNode": 1})
    until_published(world)
    job = world.jobs[world.job("a1")]
    job["metadata"]["creationTimestamp"] = "2026-11-21T12:00:00Z"
    world.refuses = creations_of("Model")
    world.settle()
    world.now += timedelta(hours=5)
    world.refuses = lambda *_: False
    world.settle()
    assert world.status.state == "succeeded"
    assert world.status.gpu_seconds == 2 * 300  # the pod's five minutes


@pytest.mark.parametrize("first_ends", ["crash", "suspension"])
def test_one_place_for_jobs_suffices_for_all_attempts(first_ends: str) -> None:
    """count/jobs.batch=1: the ended Job of one step must not keep the next one waiting."""
    world = StrictWorld()
    world.refuses = lambda verb, kind, name: (
        (verb, kind) == ("create", "Job") and bool(world.jobs) and name not in world.jobs
    )
    world.settle()
    world.end_pod("prepare", 0, 0, prepared())
    world.settle()
    assert [name[-3:] for name in world.jobs] == ["-a1"]
    if first_ends == "crash":
        world.end_pod("a1", 1, 1, failed("RankCrashed"))
        world.fail_job("a1")
        world.settle()
    else:
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=True))
        world.settle()
        assert world.jobs == {}
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=False))
        world.settle()
    assert [name[-3:] for name in world.jobs] == ["-a2"]
    reasons = [attempt.reason for attempt in world.status.attempts]
    assert reasons == [Reason.RANK_CRASHED if first_ends == "crash" else Reason.SUSPENDED, None]
    world.ready_pods("a2")
    world.settle()
    world.end_pod("a2", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"


@pytest.mark.parametrize("end", ["cancel", "suspend", "deadline"])
def test_a_refused_second_attempt_can_be_ended(end: str) -> None:
    world = StrictWorld(pendingDeadlineSeconds=600)
    world.until_running()
    world.progress = None
    world.refuses = creations_of("Job", "-a2")
    world.end_pod("a1", 1, 1, failed("RankCrashed"))
    world.settle()
    first, second = world.status.attempts
    assert (first.reason, second.ended_at) == (Reason.RANK_CRASHED, None)
    assert world.status.reason == Reason.QUOTA_EXCEEDED
    if end == "deadline":
        world.now += timedelta(seconds=700)
    else:
        spec = world.finetune.spec.replace(**{end: True})
        world.finetune = world.finetune.replace(spec=spec)
    world.settle()
    expected = {"cancel": "cancelled", "suspend": "pending", "deadline": "failed"}[end]
    assert world.status.state == expected
    assert world.status.attempts[-1].ended_at is not None


def test_a_user_who_deletes_a_job_whose_pods_a_quota_refuses_ends_the_finetune() -> None:
    """The same reason, but this Job existed: it is not created again."""
    world = StrictWorld()
    world.until_training()
    status = world.status.replace(reason=Reason.QUOTA_EXCEEDED)  # of its pods
    world.finetune = world.finetune.replace(status=status)
    world.jobs.pop(world.job("a1"))
    world.settle()
    assert not [name for name in world.jobs if name.endswith("-a1")]


DELETIONS: Rule = lambda verb, *_: verb == "delete"  # noqa: E731


@pytest.mark.parametrize("state", ["running", "pending"])
def test_a_cancelled_finetune_whose_job_cannot_be_deleted_says_so(state: str) -> None:
    world = StrictWorld()
    world.until_running() if state == "running" else world.until_training()
    world.refuses = DELETIONS
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(cancel=True))
    world.settle()
    writes = world.status_writes
    world.step()
    assert world.status_writes == writes
    assert world.status.state == state
    assert "cannot be deleted" in world.status.message
    world.refuses = lambda *_: False
    world.settle()
    assert (world.status.state, world.jobs) == ("cancelled", {})


def test_a_deadline_that_has_passed_does_not_shorten_the_back_off() -> None:
    world = StrictWorld(pendingDeadlineSeconds=600)
    world.until_training()
    world.refuses = DELETIONS
    assert (world.step().requeue_after or 0) > 0
    world.now += timedelta(seconds=700)
    plan = world.step()
    assert plan.is_refused
    assert plan.requeue_after is None
    assert "cannot be deleted" in world.status.message


def test_a_leftover_that_cannot_be_deleted_stops_no_training() -> None:
    world = StrictWorld()
    world.until_running()
    world.progress = None
    world.refuses = DELETIONS
    world.end_pod("a1", 1, 1, failed("RankCrashed"))
    world.settle()
    world.ready_pods("a2")
    world.settle()
    assert (world.status.state, world.status.reason) == ("running", Reason.TRAINING)
    assert "cannot be deleted" in world.status.message
    world.end_pod("a2", 0, 0, trained())
    world.settle()
    assert world.status.state == "succeeded"


def test_a_suspended_finetune_stays_suspended_when_its_job_cannot_be_deleted() -> None:
    world = StrictWorld(pendingDeadlineSeconds=600)
    world.until_running()
    world.progress = None
    world.refuses = DELETIONS
    world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=True))
    world.settle()
    assert world.status.reason == Reason.SUSPENDED
    assert "cannot be deleted" in world.status.message
    world.now += timedelta(seconds=700)
    world.settle()
    assert world.status.state == "pending"


def test_no_pod_starts_before_its_network_policy() -> None:
    world = StrictWorld()
    world.settings = a_settings(podNetwork={"egress": [{}]})
    world.refuses = creations_of("NetworkPolicy")
    world.settle()
    assert world.created == []
    assert (world.status.state, world.status.reason) == ("pending", Reason.QUOTA_EXCEEDED)
    assert "NetworkPolicy ft-tone-" in world.status.message
    world.refuses = lambda *_: False
    world.settle()
    assert [item["kind"] for item in world.created] == ["NetworkPolicy", "Job"]


UNREAD = Refusal("list", "services", "", 403, 'User "op" cannot list resource "services"')


@pytest.mark.parametrize("state", ["new", "validating", "queued", "running", "suspended"])
def test_children_that_cannot_be_read_change_nothing_but_the_message(state: str) -> None:
    world = StrictWorld(**({"queueName": "gpus"} if state == "queued" else {}))
    if state == "validating":
        world.settle()
    elif state == "queued":
        world.until_training()
    elif state != "new":
        world.until_running()
    if state == "suspended":
        world.finetune = world.finetune.replace(spec=world.finetune.spec.replace(suspend=True))
        world.settle()
    before = world.status
    found = []
    for _ in range(2):
        plan = unread_plan(world.observe(), UNREAD, world.now)
        world.finetune = world.finetune.replace(status=plan.status)
        world.now += timedelta(seconds=60)
        found.append(plan.status)
    assert found[0] == found[1]
    after = found[0]
    assert after.state == (before.state or "pending")
    assert after.started_at
    assert [event.reason for event in after.events].count("Created") == 1
    assert "services cannot be listed" in (after.message or "")
    expected = {"running": Reason.TRAINING, "suspended": Reason.SUSPENDED}
    assert after.reason == expected.get(state, Reason.FORBIDDEN)
    assert after.attempts == before.attempts
    world.settle()
    recovered = world.status
    assert (recovered.state, recovered.reason) == (before.state or "pending", before.reason) or (
        state == "new" and recovered.reason == Reason.VALIDATING
    )


def test_each_reason_of_a_refusal_is_pending_or_of_the_user() -> None:
    assert {Reason.INVALID_SPEC} == names.REFUSAL_REASONS - names.PENDING_REASONS
    assert a_settings().restart_seconds == 0
