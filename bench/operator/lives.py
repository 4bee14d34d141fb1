"""When each FineTune was created, got its Job, was trained and ended, from the audit log."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.operator.audit import Request, of_child


@dataclass
class Life:
    """Seconds since 1970; None: it was not seen."""

    created: float | None = None
    first_job: float | None = None
    trained: float | None = None  # the kubelet told that rank 0 has ended
    ended: float | None = None  # the status write that says so; of the script the Model

    @property
    def is_whole(self) -> bool:
        return None not in (self.created, self.first_job, self.trained, self.ended)


def lives_of_operator(found: Iterable[Request], user: str) -> dict[str, Life]:
    """By the FineTune's name."""
    lives: dict[str, Life] = {}
    for one in found:
        if (one.verb, one.resource) == ("create", "finetunes"):
            lives[one.name] = Life(created=one.at)
        elif (one.verb, one.resource, one.user) == ("patch", "finetunes/status", user):
            if one.name in lives:  # others may have begun before
                lives[one.name].ended = one.at  # the last one counts
        else:
            _note_child(lives, one, user)
    return lives


def lives_of_script(found: Iterable[Request], user: str) -> dict[str, Life]:
    """All were wanted when the script sent its first request."""
    lives: dict[str, Life] = {}
    begin = None
    for one in found:
        if one.user == user and one.is_write:
            begin = begin or one.at
        if (one.verb, one.resource, one.user) == ("create", "jobs", user):
            lives.setdefault(of_child(one.name)[0], Life(created=begin))
        if (one.verb, one.resource, one.user) == ("create", "models", user):
            lives["script-" + one.name.rpartition("script-")[2]].ended = one.at
        else:
            _note_child(lives, one, user)
    return lives


def _note_child(lives: dict[str, Life], one: Request, user: str) -> None:
    if (one.verb, one.resource, one.user) == ("create", "jobs", user):
        life = lives.get(of_child(one.name)[0])
        if life is not None and life.first_job is None:
            life.first_job = one.at
    elif one.agent == "kwok" and one.resource == "pods/status":
        name, what = of_child(one.name)
        if what.startswith("a1-0") and name in lives:
            lives[name].trained = one.at  # the last one counts: ready, then ended


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
