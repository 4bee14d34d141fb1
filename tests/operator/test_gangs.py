"""Gangs that each hold what the other one needs: one is released, and all of them end."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.names import Reason
from finetune_operator.core.attempts.gangs import (
    DOUBLINGS,
    HOLDS,
    RELEASES_AT_MOST,
    Release,
    find_release,
    gang_of,
    seconds_to_retry,
)
from finetune_operator.core.observed import Job
from finetune_operator.core.plan import DeleteJob, stamp
from finetune_operator.core.rivals import Gang, Rivals
from tests.support.objects import NOW, World, a_finetune, a_settings

PATIENCE = 60.0
LONG_AGO = NOW - timedelta(hours=10)
GPU = (("nvidia.com/gpu", 1),)
FULL = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def a_gang(name: str, held: int, wanted: int = 2, **fields: Any) -> Gang:
    """A gang that has lacked nodes for long. The names are in the order of creation."""
    created = f"2026-11-21T1{ord(name[0]) - ord('a')}:00:00Z"
    found = Gang("team", name, created, 0, wanted, held, GPU, LONG_AGO)
    return replace(found, **fields)


def release(own: Gang, *others: Gang, releases: int = 0, **rivals: Any) -> Release:
    own = replace(own, releases=releases) if releases else own
    return find_release(own, Rivals(others, **rivals), PATIENCE, NOW)


OTHER_TEAM = {"namespace": "other"}
AMD = {"devices": (("amd.com/gpu", 1),)}
EIGHT = {"devices": (("nvidia.com/gpu", 8),)}
REFUSED = {"is_refused": True}
RECENT = {"since": NOW - timedelta(seconds=10)}


@pytest.mark.parametrize(
    ("own", "others", "favored"),
    [
        # two partial gangs: the younger one is released
        (a_gang("b", 1), [a_gang("a", 1)], "a"),
        (a_gang("a", 1), [a_gang("b", 1)], None),
        (a_gang("b", 1), [a_gang("a", 1, **OTHER_TEAM)], "a"),
        # three: the youngest first, for the oldest
        (a_gang("c", 1), [a_gang("b", 1), a_gang("a", 1)], "a"),
        (a_gang("b", 1), [a_gang("c", 1), a_gang("a", 1)], None),
        # a higher priority counts before the age
        (a_gang("a", 1), [a_gang("b", 1, priority=5)], "b"),
        (a_gang("b", 1, priority=5), [a_gang("a", 1)], None),
        # one that was released before comes first, so that those that never fit are not preferred
        (a_gang("a", 1), [a_gang("b", 1, releases=1)], "b"),
        (a_gang("b", 1, releases=1), [a_gang("a", 1)], None),
        (a_gang("b", 1, releases=1), [a_gang("a", 1, releases=1)], "a"),
        (a_gang("b", 1, releases=1), [a_gang("a", 1, priority=5)], "a"),
        # other devices, and a quota of another namespace
        (a_gang("b", 1), [a_gang("a", 1, **AMD)], None),
        (a_gang("b", 1), [a_gang("a", 1, **AMD), a_gang("c", 1)], None),
        (a_gang("c", 1), [a_gang("a", 1, **AMD), a_gang("b", 1)], "b"),
        (a_gang("b", 1), [a_gang("a", 1, devices=())], "a"),
        (a_gang("b", 1), [a_gang("a", 1, **REFUSED)], "a"),
        (a_gang("b", 1), [a_gang("a", 1, **REFUSED, **OTHER_TEAM)], None),
        # nothing is left alone that holds nothing, and nobody waits alone
        (a_gang("b", 0), [a_gang("a", 1)], None),
        (a_gang("a", 1), [], None),
        # too large for the cluster: another one fits into its places
        (a_gang("a", 3, 4), [a_gang("b", 0)], "b"),
        (a_gang("a", 3, 4), [a_gang("c", 0), a_gang("b", 0)], "b"),
        (a_gang("a", 1, 4), [a_gang("b", 0)], None),
        (a_gang("a", 1, 4), [a_gang("b", 0, 1)], "b"),
        (a_gang("a", 1, 2, **EIGHT), [a_gang("b", 0, 4)], "b"),
        (a_gang("a", 3, 4), [a_gang("b", 0, 1, **EIGHT)], None),
        (a_gang("a", 3, 4, devices=()), [a_gang("b", 0, devices=())], "b"),
        (a_gang("a", 1, 4, devices=()), [a_gang("b", 0, devices=())], None),
        (a_gang("a", 3, 4), [a_gang("b", 0, **AMD)], None),
        # the scheduler would preempt it again
        (a_gang("a", 3, 4, priority=5), [a_gang("b", 0)], None),
        (a_gang("a", 3, 4), [a_gang("b", 0, priority=5)], "b"),
        # the conflict of two partial gangs comes first
        (a_gang("a", 2, 4), [a_gang("b", 1), a_gang("c", 0)], None),
    ],
)
def test_one_gang_is_released_for_the_one_that_comes_first(
    own: Gang, others: list[Gang], favored: str | None
) -> None:
    found = release(own, *others)
    assert (found.favored and found.favored.name) == favored
    assert found.is_due == (favored is not None)


@pytest.mark.parametrize(
    ("own", "rival", "rivals", "seconds"),
    [
        ({}, {}, {}, 0),
        (RECENT, {}, {}, 50),
        ({}, RECENT, {}, 50),
        ({}, {}, {"released_at": NOW - timedelta(seconds=20)}, 40),
        ({}, {}, {"released_at": LONG_AGO}, 0),
        ({}, {}, {"is_leaving": True}, PATIENCE),
        ({"since": None}, {}, {}, 0),
        ({"since": NOW + timedelta(minutes=10)}, {}, {}, 0),  # a clock that is wrong
    ],
)
def test_a_release_waits_until_the_scheduler_had_its_chance(
    own: dict[str, Any], rival: dict[str, Any], rivals: dict[str, Any], seconds: float
) -> None:
    found = release(a_gang("b", 1, **own), a_gang("a", 1, **rival), **rivals)
    assert (found.seconds_left, found.is_due) == (seconds, seconds == 0)


@pytest.mark.parametrize("releases", range(DOUBLINGS + 2))
def test_a_large_gang_holds_its_places_longer_each_time_and_waits_longer(releases: int) -> None:
    growth = 2.0 ** min(releases, DOUBLINGS)
    own = a_gang("a", 3, 4, since=NOW - timedelta(seconds=1))
    found = release(own, a_gang("b", 0), releases=releases)
    assert found.seconds_left == HOLDS * PATIENCE * growth - 1
    assert seconds_to_retry(releases, PATIENCE) == PATIENCE * growth


def test_nothing_is_released_if_it_is_turned_off_or_too_often() -> None:
    pair = a_gang("b", 1), a_gang("a", 1)
    assert find_release(pair[0], Rivals((pair[1],)), 0, NOW).favored is None
    assert release(*pair, releases=RELEASES_AT_MOST).favored is None
    often = replace(pair[1], releases=RELEASES_AT_MOST - 1)
    assert release(pair[0], often, releases=RELEASES_AT_MOST - 1).is_due


GANGS = st.lists(
    st.builds(
        lambda name, held, wanted, priority, team, gpus, releases: a_gang(
            name,
            min(held, wanted - 1),
            wanted,
            priority=priority,
            namespace=team,
            releases=releases,
            devices=(("nvidia.com/gpu", gpus),) if gpus else (),
        ),
        st.sampled_from("abcdef"),
        st.integers(0, 3),
        st.integers(1, 4),
        st.integers(0, 1),
        st.sampled_from(["team", "other"]),
        st.integers(0, 2),
        st.integers(0, 2),
    ),
    max_size=6,
    unique_by=lambda gang: (gang.namespace, gang.name),
)


@given(GANGS)
@settings(max_examples=100)
def test_of_all_partial_gangs_at_most_one_of_those_that_conflict_is_released(
    gangs: list[Gang],
) -> None:
    def favored(own: Gang) -> Gang | None:
        return release(own, *(gang for gang in gangs if gang is not own)).favored

    released = [gang for gang in gangs if favored(gang)]
    assert all(gang.is_partial for gang in released)
    in_conflict = [gang for gang in released if (other := favored(gang)) and other.is_partial]
    assert len(in_conflict) <= 1
    for gang in in_conflict:
        other = favored(gang)
        assert other is not None
        assert other.order < gang.order
    # the first one in the order keeps its pods in every conflict
    first = min(
        (gang for gang in gangs if gang.is_partial), key=lambda gang: gang.order, default=None
    )
    assert first not in in_conflict


# --- a cluster in small ---------------------------------------------------------------------------


@dataclass
class Life:
    """A FineTune in the simulation. Times are seconds."""

    name: str
    wanted: int
    held: int = 0
    since: int = 0
    starts_at: int = 0
    releases: int = 0
    ran: int = 0
    trained: int = 0

    def gang(self, now: int) -> Gang | None:
        if self.ran >= self.trained > 0 or now < self.starts_at or self.held == self.wanted:
            return None
        since = NOW + timedelta(seconds=self.since)
        fields = {"since": since, "releases": self.releases}
        return a_gang(self.name, self.held, self.wanted, **fields)


def simulate(
    sizes: list[int], room: int, foreign: int, seed: int, seconds: int = 200_000
) -> list[Life]:
    """Run gangs in a cluster whose scheduler places pods in any order, as long as it takes.

    foreign: places that pods of others hold for the first hour.
    """
    rng = random.Random(seed)
    lives = [Life("abcdef"[i], size, trained=rng.randint(1, 600)) for i, size in enumerate(sizes)]
    last: datetime | None = None
    fits = [life for life in lives if life.wanted <= room]
    for now in range(0, seconds, 5):
        free = room - sum(life.held for life in lives) - (foreign if now < 3600 else 0)
        lacking = [life for life in lives if life.gang(now)]
        while free > 0 and lacking:
            life = rng.choice(lacking)
            life.held, life.since, free = life.held + 1, now, free - 1
            lacking = [life for life in lives if life.gang(now)]
        for life in lives:
            if life.held == life.wanted:
                life.ran += 5
                if life.ran >= life.trained:
                    life.held = 0
        views = {life.name: life.gang(now) for life in lives}
        for life in rng.sample(lives, len(lives)):
            own = views[life.name]
            others = tuple(gang for name, gang in views.items() if gang and name != life.name)
            if own is None or own.held == 0:
                continue
            at = NOW + timedelta(seconds=now)
            if not find_release(own, Rivals(others, last), PATIENCE, at).is_due:
                continue
            last = at
            life.starts_at = life.since = now + int(seconds_to_retry(life.releases, PATIENCE))
            life.held, life.releases = 0, life.releases + 1
        if all(life.ran >= life.trained for life in fits):
            break
    return lives


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("sizes", "room", "foreign"),
    [
        ([2, 2], 3, 0),
        ([2, 2, 2], 3, 0),
        ([2, 2, 2], 4, 0),
        ([3, 2, 1], 3, 0),
        ([2, 4, 3], 4, 0),
        ([4, 2], 3, 0),  # the first one never fits
        ([2, 4, 2], 3, 0),
        ([5, 4, 2, 3], 3, 0),
        ([2, 2], 3, 1),
        ([2, 2], 3, 3),
        ([2, 3], 3, 2),
    ],
)
def test_every_gang_that_fits_into_the_cluster_ends(
    sizes: list[int], room: int, foreign: int, seed: int
) -> None:
    lives = simulate(sizes, room, foreign, seed)
    waiting = [life for life in lives if life.wanted <= room and life.ran < life.trained]
    assert not waiting, lives


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
    st.integers(1, 5),
    st.integers(0, 5),
    st.integers(0, 1000),
)
@settings(max_examples=20)
def test_every_gang_that_fits_ends_in_any_cluster(
    sizes: list[int], room: int, foreign: int, seed: int
) -> None:
    lives = simulate(sizes, room, min(foreign, room), seed)
    waiting = [life for life in lives if life.wanted <= room and life.ran < life.trained]
    assert not waiting, lives


# --- what is seen of an attempt -------------------------------------------------------------------


def place(pod: dict[str, Any], node: str | None) -> dict[str, Any]:
    """Give a pod a node, or let the scheduler refuse it one."""
    condition = {"type": "PodScheduled", "lastTransitionTime": stamp(LONG_AGO)}
    if node is None:
        refused = {"status": "False", "reason": "Unschedulable", "message": FULL}
        pod["status"] = {"phase": "Pending", "conditions": [condition | refused]}
    else:
        pod["spec"] = {**pod.get("spec", {}), "nodeName": node}
        pod["status"] = {"phase": "Pending", "conditions": [condition | {"status": "True"}]}
    return pod


def partial(world: World, *nodes: str | None) -> World:
    """Place the pods of the newest attempt."""
    name = [name for name in world.jobs if "-a" in name][-1]
    world.jobs[name]["metadata"]["creationTimestamp"] = stamp(LONG_AGO)
    for pod, node in zip(world.pods[name], nodes, strict=True):
        place(pod, node)
    return world


def a_world(**spec: Any) -> World:
    resources = {"nodes": 2, "gpusPerNode": 1}
    made = World(a_finetune(**{"resources": resources, **spec}), a_settings(gangSeconds=PATIENCE))
    made.finetune = made.finetune.replace(
        metadata=made.finetune.metadata.replace(creation_timestamp="2026-11-21T12:00:00Z")
    )
    return made.until_training()


def jobs_of(world: World) -> tuple[Job, ...]:
    return world.observe().jobs


def gang(world: World) -> Gang | None:
    return gang_of("team", "tone", "2026-11-21T12:00:00Z", jobs_of(world), 0)


def test_a_gang_is_what_the_scheduler_has_refused_a_part_of() -> None:
    world = partial(a_world(), "node-1", None)
    found = gang(world)
    assert found == Gang(
        "team", "tone", "2026-11-21T12:00:00Z", 0, 2, 1, GPU, LONG_AGO, is_refused=False
    )
    partial(world, "node-1", "node-2")
    assert gang(world) is None
    partial(world, None, None)
    # a pod keeps its node, so these are new ones
    for pod in world.pods[world.job("-a1")]:
        pod["spec"].pop("nodeName", None)
    found = gang(world)
    assert found is not None
    assert found.held == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda world: world.pod("-a1", 1).update(status={"phase": "Pending"}),  # not tried yet
        lambda world: world.pod("-a1", 0)["metadata"].update(deletionTimestamp=stamp(NOW)),
        lambda world: world.end_pod("-a1", 0, 1, "boom"),
        lambda world: world.fail_job("-a1"),
        lambda world: world.jobs[world.job("-a1")]["spec"].update(suspend=True),
        lambda world: world.jobs[world.job("-a1")]["metadata"].update(deletionTimestamp=stamp(NOW)),
        lambda world: world.pod("-a1", 1)["status"]["conditions"][0].update(
            reason="SchedulingGated"
        ),
        lambda world: world.pods[world.job("-a1")].pop(),  # the Job controller has not begun
    ],
)
def test_an_attempt_that_ends_or_has_not_been_tried_is_no_gang(change: Any) -> None:
    world = partial(a_world(), "node-1", None)
    change(world)
    assert gang(world) is None


def test_pods_that_a_quota_refuses_are_missing_too() -> None:
    world = partial(a_world(), "node-1", None)
    world.pods[world.job("-a1")].pop()
    world.jobs[world.job("-a1")]["status"] = {"startTime": stamp(LONG_AGO)}
    found = gang(world)
    assert found is not None
    assert (found.held, found.wanted, found.is_refused) == (1, 2, True)
    world.pods[world.job("-a1")].pop()
    assert gang(world) is None


# --- the attempt ----------------------------------------------------------------------------------

OLDER = Rivals((a_gang("a", 1, created="2026-11-21T11:00:00Z"),))


def test_a_released_attempt_ends_uncounted_and_the_next_one_waits_without_its_job() -> None:
    world = partial(a_world(maxRestarts=0), "node-1", None)
    world.rivals = OLDER
    plan = world.step()
    assert plan.is_release
    assert plan.is_irreversible(world.status)
    assert plan.actions == ()
    assert plan.requeue_after == 0
    first, second = world.status.attempts
    assert (first.reason, first.counted) == (Reason.GANG_RELEASED, False)
    assert first.ended_at is not None
    assert "1 of 2 pods" in (first.message or "")
    assert "FineTune a " in (first.message or "")
    assert second.ended_at is None
    assert (world.status.state, world.status.reason) == ("pending", Reason.RESTARTING)
    assert f"attempt 2 starts at {second.started_at}" in (world.status.message or "")
    events = [item for item in world.status.events if item.reason == Reason.GANG_RELEASED]
    assert [item.attempt for item in events] == [1]

    world.rivals = Rivals()
    plan = world.step()
    assert [action.name for action in plan.actions_of(DeleteJob)] == [world.deleted[-1]]
    assert not [name for name in world.jobs if "-a" in name]
    for _ in range(50):
        world.step()
    assert not [name for name in world.jobs if "-a" in name]
    world.now += timedelta(seconds=PATIENCE)
    world.step()
    assert [name for name in world.jobs if "-a" in name][-1].endswith("-a2")
    assert world.status.state == "pending"


def test_the_name_of_a_finetune_in_another_namespace_is_not_told() -> None:
    world = partial(a_world(), "node-1", None)
    world.rivals = Rivals((replace(OLDER.gangs[0], namespace="secret-team"),))
    world.step()
    message = world.status.attempts[0].message or ""
    assert "a FineTune of another namespace" in message
    assert "secret" not in message


def test_waits_grow_with_each_release_and_start_again_after_another_end() -> None:
    world = a_world()
    waits = []
    for number in range(1, 4):
        partial(world, "node-1", None)
        world.rivals = Rivals((replace(OLDER.gangs[0], releases=number),))
        before = world.now
        world.step()
        starts = datetime.fromisoformat(world.status.attempts[-1].started_at)
        waits.append((starts - before).total_seconds())
        world.rivals = Rivals()
        world.now = starts
        world.settle()
        assert world.job(f"-a{number + 1}")
    assert waits == [60, 120, 240]
    world.end_pod("-a4", 0, 1, "boom")
    world.settle()
    partial(world, "node-1", None)
    world.rivals = OLDER
    before = world.now
    world.step()
    starts = datetime.fromisoformat(world.status.attempts[-1].started_at)
    assert (starts - before).total_seconds() == 60


def test_a_user_may_suspend_or_cancel_during_the_wait() -> None:
    for field, state in (("suspend", "pending"), ("cancel", "cancelled")):
        world = partial(a_world(), "node-1", None)
        world.rivals = OLDER
        world.step()
        world.rivals = Rivals()
        spec = world.finetune.spec.replace(**{field: True})
        world.finetune = world.finetune.replace(spec=spec)
        world.settle()
        assert world.status.state == state
        assert not [name for name in world.jobs if "-a" in name]
        assert all(item.ended_at for item in world.status.attempts)


@pytest.mark.parametrize("case", ["complete", "running", "alone", "older", "off"])
def test_an_attempt_keeps_its_pods(case: str) -> None:
    world = partial(a_world(), "node-1", "node-2" if case == "complete" else None)
    world.rivals = OLDER
    if case == "running":
        world.ready_pods("-a1")
        world.settle()
        assert world.status.state == "running"
        partial(world, "node-1", None)
    elif case == "alone":
        world.rivals = Rivals()
    elif case == "older":
        world.rivals = Rivals((a_gang("c", 1, created="2026-11-21T13:00:00Z"),))
    elif case == "off":
        world.settings = a_settings(gangSeconds=0)
    world.settle()
    assert len(world.status.attempts) == 1
    assert world.job("-a1")


def test_an_operator_that_dies_at_any_point_of_a_release_continues_it() -> None:
    for dies in ("before the write", "before the deletion", "after the wait"):
        world = partial(a_world(), "node-1", None)
        world.rivals = OLDER
        world.step(writes=dies != "before the write")
        world.step(acts=dies != "before the deletion")
        world.settle()
        world.now += timedelta(seconds=PATIENCE)
        world.step(writes=dies != "after the wait")
        world.rivals = Rivals()
        world.settle()
        assert [name for name in world.jobs if "-a" in name] == [world.job("-a2")]
        assert [item.reason for item in world.status.attempts] == [Reason.GANG_RELEASED, None]
