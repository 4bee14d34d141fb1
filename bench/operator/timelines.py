"""The timeline of each FineTune, from the audit log: created, first Job, trained, ended."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.operator.audit import Request, of_child


@dataclass
class Timeline:
    """Seconds since 1970; None: not in the log."""

    created: float | None = None
    first_job: float | None = None
    trained: float | None = None  # the kubelet reported the end of rank 0
    ended: float | None = None  # the last status write; for the script, the creation of the Model

    @property
    def is_whole(self) -> bool:
        return None not in (self.created, self.first_job, self.trained, self.ended)


def timelines_of_operator(found: Iterable[Request], user: str) -> dict[str, Timeline]:
    """Return the timelines of the operator's FineTunes by name."""
    timelines: dict[str, Timeline] = {}
    for one in found:
        if (one.verb, one.resource) == ("create", "finetunes"):
            timelines[one.name] = Timeline(created=one.at)
        elif (one.verb, one.resource, one.user) == ("patch", "finetunes/status", user):
            if one.name in timelines:  # others may have started before
                timelines[one.name].ended = one.at  # the last one counts
        else:
            _note_child(timelines, one, user)
    return timelines


def timelines_of_script(found: Iterable[Request], user: str) -> dict[str, Timeline]:
    """Return the script's timelines; all start with the script's first request."""
    timelines: dict[str, Timeline] = {}
    begin = None
    for one in found:
        if one.user == user and one.is_write:
            begin = begin or one.at
        if (one.verb, one.resource, one.user) == ("create", "jobs", user):
            timelines.setdefault(of_child(one.name)[0], Timeline(created=begin))
        if (one.verb, one.resource, one.user) == ("create", "models", user):
            timelines["script-" + one.name.rpartition("script-")[2]].ended = one.at
        else:
            _note_child(timelines, one, user)
    return timelines


def _note_child(timelines: dict[str, Timeline], one: Request, user: str) -> None:
    if (one.verb, one.resource, one.user) == ("create", "jobs", user):
        timeline = timelines.get(of_child(one.name)[0])
        if timeline is not None and timeline.first_job is None:
            timeline.first_job = one.at
    elif one.agent == "kwok" and one.resource == "pods/status":
        name, what = of_child(one.name)
        if what.startswith("a1-0") and name in timelines:
            timelines[name].trained = one.at  # the last one counts: ready, then ended


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile, which is a measured value."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
