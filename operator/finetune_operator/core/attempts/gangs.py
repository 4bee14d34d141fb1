"""Partial gangs: attempts that hold nodes and cannot start, because they lack the others.

Without a scheduler that places all pods of an attempt or none, two attempts can each hold what the
other one needs, forever. The operator then releases one: it deletes the Job and creates the next
attempt later. `Gang.order` decides which one keeps its pods: it depends on the objects only, so
that it is the same in each decision of each operator.

1. Of the partial gangs that hold places which an earlier one may need, the last is released. The
   next one follows only if that did not help.
2. A partial gang that no other one can help is released if a gang that holds nothing would fit into
   its places: it may be too large for the cluster. It holds them for twice as long each time, so
   that a large gang gets its turn among small ones.

A gang that has all its nodes is never released, and neither is one that holds nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from finetune_api import names
from finetune_api.finetune_status import Attempt
from finetune_api.names import Reason
from finetune_operator.core.observed import Job
from finetune_operator.core.plan import left_of
from finetune_operator.core.rivals import Gang, Rivals

HOLDS = 5.0  # times the patience: how long a gang holds places in which another one would fit
DOUBLINGS = 4  # of waits and holds
RELEASES_AT_MOST = 150  # of the attempts that a FineTune may have


@dataclass(frozen=True)
class Release:
    """Whether a gang is released. favored: the gang that may get its places."""

    favored: Gang | None = None
    seconds_left: float | None = None  # until the decision may be another one; 0: now

    @property
    def is_due(self) -> bool:
        return self.favored is not None and self.seconds_left == 0


NO_RELEASE = Release()


def gang_of(
    namespace: str, name: str, created: str, jobs: Iterable[Job], releases: int
) -> Gang | None:
    """The gang of a FineTune whose newest attempt lacks nodes; None if there is none.

    It is also None while a pod ends, because the attempt then ends, and while the scheduler or the
    Job controller has not tried all pods yet.
    """
    trains = [job for job in jobs if job.component == names.COMPONENT_TRAIN and job.is_live]
    job = max(trains, key=lambda job: job.attempt or 0, default=None)
    if job is None or job.is_suspended:
        return None
    if any(pod.has_worked or pod.is_going or pod.is_disrupted for pod in job.pods):
        return None
    held = sum(pod.node is not None for pod in job.pods)
    unscheduled = sum(
        pod.unscheduled_message is not None and pod.node is None and not pod.is_gated
        for pod in job.pods
    )
    absent = job.wanted - len(job.pods)
    is_tried = held + unscheduled + absent == job.wanted and (absent == 0 or job.has_begun)
    if not is_tried or held >= job.wanted or not (held or unscheduled):
        return None
    times = [job.created_at, *(pod.placed_at for pod in job.pods)]
    return Gang(
        namespace=namespace,
        name=name,
        created=created,
        priority=max((pod.priority for pod in job.pods), default=0),
        wanted=job.wanted,
        held=held,
        devices=job.devices,
        since=max((time for time in times if time), default=None),
        is_refused=unscheduled == 0,
        releases=releases,
    )


def find_release(own: Gang, rivals: Rivals, patience: float, now: datetime) -> Release:
    """Decide whether a gang is released, and when.

    patience: seconds that a gang may lack nodes before anything follows; 0: nothing is released.
    """
    if not own.is_partial or patience <= 0 or own.releases >= RELEASES_AT_MOST:
        return NO_RELEASE
    partial = [gang for gang in (own, *rivals.gangs) if gang.is_partial]
    in_the_way = [gang for gang in partial if _helped_by(gang, partial)]
    if in_the_way:
        if max(in_the_way, key=lambda gang: gang.order) != own:
            return NO_RELEASE
        favored = min(_helped_by(own, partial), key=lambda gang: gang.order)
        holds = patience
    else:
        waiting = [
            gang
            for gang in rivals.gangs
            if gang.held == 0
            and gang.priority >= own.priority
            and own.helps(gang)
            and gang.fits_into_places_of(own)
        ]
        if not waiting:
            return NO_RELEASE
        favored = min(waiting, key=lambda gang: gang.order)
        holds = HOLDS * patience * _growth(own.releases)
    left = [
        left_of(holds, own.since, now),
        left_of(patience, favored.since, now),
        left_of(patience, rivals.released_at, now) if rivals.released_at else 0.0,
        patience if rivals.is_leaving else 0.0,
    ]
    return Release(favored, max(left))


def seconds_to_retry(releases: int, patience: float) -> float:
    """The wait after a release. releases: of the attempts just before it."""
    return patience * _growth(releases)


def count_releases(attempts: Sequence[Attempt], number: int) -> int:
    """How many attempts just before attempt `number` the operator has released."""
    reasons = {attempt.number: attempt.reason for attempt in attempts}
    count = 0
    while reasons.get(number - 1 - count) == Reason.GANG_RELEASED:
        count += 1
    return count


def _helped_by(gang: Gang, partial: Sequence[Gang]) -> list[Gang]:
    """The partial gangs before a gang that may get its places."""
    return [other for other in partial if other.order < gang.order and gang.helps(other)]


def _growth(releases: int) -> float:
    return 2.0 ** min(releases, DOUBLINGS)
