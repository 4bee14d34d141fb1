"""The result of a decision: actions in order, the whole status, and the next reconcile."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import TERMINAL_STATES, State


@dataclass(frozen=True)
class Create:
    """Create an object, and never change it. A 409 is a success if the object is ours."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class CreateService:
    """Create the Service of an attempt. Its owner is the Job, which may have just been created.

    group_version: of the API in which its PodGroup is created before it; empty: it has none.
    """

    attempt: int
    job_name: str
    group_version: str = ""


@dataclass(frozen=True)
class DeleteJob:
    """Delete a Job with its pods. The UID protects a newer Job of the same name."""

    name: str
    uid: str


Action = Create | CreateService | DeleteJob


@dataclass(frozen=True)
class Plan:
    """Actions first, then one status write, then the Events that are new in it."""

    status: FineTuneStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None  # seconds; None: wait for a trigger
    is_refused: bool = False  # the API server refuses a request: retries have a back-off
    is_release: bool = False  # it ends an attempt whose pods have not ended

    def is_irreversible(self, before: FineTuneStatus) -> bool:
        """Whether it deletes a Job, or ends a waiting attempt, or the FineTune without success.

        before: the status before the plan. A success needs no second look: what a pod has published
        stays published, and the write of the status fails if the FineTune has changed.
        """
        ends = before.state not in TERMINAL_STATES and self.status.state in TERMINAL_STATES
        fails = ends and self.status.state != State.SUCCEEDED
        return fails or self.is_release or bool(self.actions_of(DeleteJob))

    def actions_of(self, kind: type[Action]) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if isinstance(action, kind))


def left_of(seconds: float, since: datetime | None, now: datetime) -> float:
    """Seconds left of a wait that began at a time on a clock of the cluster; 0: it is over.

    A clock that is ahead of the operator's, or far behind it, ends the wait immediately.
    """
    age = seconds if since is None else (now - since).total_seconds()
    return seconds - age if 0 <= age < seconds else 0.0


def stamp(at: datetime) -> str:
    """RFC 3339, whole seconds, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
