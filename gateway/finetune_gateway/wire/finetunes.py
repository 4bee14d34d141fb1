"""What both APIs show of a FineTune, with the same values."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_api.finetune import FineTune
from finetune_api.finetune_spec import Hyperparameters
from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.model import Model
from finetune_api.names import TERMINAL_STATES, State
from finetune_api.wire import JsonObject
from finetune_gateway.wire.timestamps import unix
from finetune_web.problems import Kind, Problem

_ENDS = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.CANCELLED: "been cancelled"}


def parse_finetune(obj: JsonObject) -> FineTune:
    """Raise Problem for an object of a version of the CRDs that this gateway does not know."""
    try:
        return FineTune.parse(obj)
    except ValidationError as error:
        raise _unreadable("FineTune", obj, error) from error


def parse_model(obj: JsonObject) -> Model:
    """Raise Problem for an object of a version of the CRDs that this gateway does not know."""
    try:
        return Model.parse(obj)
    except ValidationError as error:
        raise _unreadable("Model", obj, error) from error


def sort_key(obj: JsonObject) -> tuple[str, str]:
    """The time of creation and the name: the order of lists, before the objects are parsed."""
    return str(_part(obj, "metadata").get("creationTimestamp", "")), name_of(obj)


def name_of(obj: JsonObject) -> str:
    return str(_part(obj, "metadata").get("name", ""))


def annotations_of(obj: JsonObject) -> JsonObject:
    return _part(_part(obj, "metadata"), "annotations")


def _part(obj: JsonObject, key: str) -> JsonObject:
    found = obj.get(key)
    return found if isinstance(found, dict) else {}


def created_at(finetune: FineTune) -> int:
    return unix(finetune.metadata.creation_timestamp) or 0


def updated_at(finetune: FineTune) -> int:
    """The latest time in the object."""
    status = finetune.status
    times = [status.started_at, status.finished_at]
    times += [status.progress.updated_at] if status.progress else []
    times += [status.events[-1].at] if status.events else []
    return max(created_at(finetune), *(unix(time) or 0 for time in times))


def is_ended(finetune: FineTune) -> bool:
    return finetune.status.state in TERMINAL_STATES


def describe_end(finetune: FineTune) -> str:
    """The end of a FineTune that has ended, after `has`: `succeeded`, or `been cancelled`."""
    return _ENDS[finetune.status.state or ""]


def hyperparameters(finetune: FineTune) -> ResolvedHyperparameters | Hyperparameters:
    """As used; before the data is checked, as requested."""
    resolved = finetune.status.resolved
    used = resolved.hyperparameters if resolved else None
    return used or finetune.spec.hyperparameters


def _unreadable(kind: str, obj: JsonObject, error: ValidationError) -> Problem:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Problem(
        500,
        f"{kind} {name_of(obj)[:253]} has a value that this version of the gateway cannot read: "
        f"{where[:200]}: {first['msg'][:200]}. Upgrade the gateway.",
        kind=Kind.SERVER,
        code="unreadable_object",
        should_retry=False,
    )
