"""An unfinished FineTune with its children, as the store holds them."""

from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import NamedTuple, Self

from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.core.attempts.gangs import gang_of
from finetune_operator.core.key import Key
from finetune_operator.core.observed import Job, Pod
from finetune_operator.core.rivals import Gang


@dataclass(slots=True, frozen=True)
class Child:
    """A Job without its pods, or a pod. version: None if it is not a number."""

    value: Job | Pod
    version: int | None
    digest: int
    owner: str  # UID
    created: tuple[str, str]  # time and name


class Releases(NamedTuple):
    """The attempts of a FineTune that were released, without another end since then."""

    attempt: int  # the last one
    at: str
    times: int

    @classmethod
    def of(cls, raw: JsonObject) -> Self | None:
        attempts = (raw.get("status") or {}).get("attempts", [])
        ended = [item for item in attempts if item.get("endedAt")]
        last = list(takewhile(_is_released, reversed(ended)))
        return cls(last[0]["number"], last[0]["endedAt"], len(last)) if last else None


def _is_released(attempt: JsonObject) -> bool:
    return attempt.get("reason") == names.Reason.GANG_RELEASED


@dataclass(slots=True)
class Family:
    """A FineTune with its children. JSON takes a tenth of the memory of the parsed value."""

    key: Key
    uid: str
    finetune: bytes = b""  # empty: a child was seen before it
    version: int | None = None
    digest: int | None = None
    has_ended: bool = False
    is_suspended: bool = False
    has_ttl: bool = False
    is_complete: bool = False  # all of its children are known
    created: str = ""
    releases: Releases | None = None
    gang: Gang | None = None
    is_stale: bool = True  # a child has changed since the gang was computed
    children: dict[str, dict[str, Child]] = field(default_factory=lambda: {"jobs": {}, "pods": {}})
    served: set[str] = field(default_factory=set)  # UIDs of the Jobs that have their Service

    def jobs(self) -> list[Job]:
        found = sorted(self.children["jobs"].values(), key=lambda child: child.created)
        return [child.value for child in found if isinstance(child.value, Job)]

    def pods_of(self, job: Job) -> tuple[Pod, ...]:
        pods = [child for child in self.children["pods"].values() if child.owner == job.uid]
        pods.sort(key=lambda child: child.created)
        return tuple(child.value for child in pods if isinstance(child.value, Pod))

    def lacking(self) -> Gang | None:
        """Its gang, if that lacks nodes."""
        if self.is_stale:
            found = [replace(job, pods=self.pods_of(job)) for job in self._current()]
            times = self.releases.times if self.releases else 0
            namespace, name = self.key.namespace, self.key.name
            self.gang = gang_of(namespace, name, self.created, found, times)
            self.is_stale = False
        return None if self.has_ended else self.gang

    def _current(self) -> list[Job]:
        """The Jobs without that of a released attempt, which is about to be deleted."""
        last = self.releases.attempt if self.releases else 0
        return [job for job in self.jobs() if job.attempt is None or job.attempt > last]

    @property
    def is_leaving(self) -> bool:
        """Whether pods of a released attempt still have their nodes."""
        if self.releases is None:
            return False
        live = {job.uid for job in self._current() if job.is_live}
        pods = [child for child in self.children["pods"].values() if child.owner not in live]
        values = [child.value for child in pods if isinstance(child.value, Pod)]
        return any(pod.attempt and pod.node and not pod.has_worked for pod in values)

    @property
    def is_settled(self) -> bool:
        """Whether it has ended and nothing of it is left to delete, now or after its TTL."""
        return self.has_ended and not any(is_left(job, self.has_ttl) for job in self.jobs())


def is_left(job: Job, has_ttl: bool) -> bool:
    """Whether a Job of a FineTune that has ended may still be deleted."""
    return not job.is_going and (has_ttl or not (job.has_completed or job.has_failed))
