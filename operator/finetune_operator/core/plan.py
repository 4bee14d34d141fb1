"""What a decision asks for: actions in order, the whole status, and when to look again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finetune_api.finetune_status import FineTuneStatus


@dataclass(frozen=True)
class Create:
    """POST once, never applied again. 409 is success when the object is ours."""

    manifest: dict[str, Any]


@dataclass(frozen=True)
class CreateService:
    """The Service of an attempt; its owner is the attempt's Job, whose UID may be just made."""

    attempt: int
    job_name: str


@dataclass(frozen=True)
class DeleteJob:
    """With its pods. The UID is a precondition: never a newer object of the same name."""

    name: str
    uid: str


Action = Create | CreateService | DeleteJob


@dataclass(frozen=True)
class Plan:
    """Actions first, then one status write, then the Events that are new in it."""

    status: FineTuneStatus
    actions: tuple[Action, ...] = ()
    requeue_after: float | None = None  # seconds; None: only a trigger wakes it

    def actions_of(self, kind: type[Action]) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if isinstance(action, kind))


def stamp(at: datetime) -> str:
    """RFC 3339, whole seconds, UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
