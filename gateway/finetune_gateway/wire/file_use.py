"""Which FineTunes need a file, in objects that this version of the gateway may not know fully."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from finetune_api.names import TERMINAL_STATES, State
from finetune_api.wire import JsonObject
from finetune_gateway.wire.finetunes import name_of


def find_user(finetunes: Iterable[JsonObject], address: str) -> tuple[str, str] | None:
    """The name and the state of a FineTune that has not ended and reads this file."""
    for obj in finetunes:
        state = _part(obj, "status").get("state") or State.PENDING
        if state not in TERMINAL_STATES and address in _addresses(_part(obj, "spec")):
            return name_of(obj), str(state)
    return None


def _addresses(spec: JsonObject) -> Iterator[object]:
    yield spec.get("trainingFile")
    yield spec.get("validationFile")
    several: Any = spec.get("trainingFiles")
    for item in several if isinstance(several, list) else []:
        if isinstance(item, dict):
            yield item.get("uri")


def _part(obj: JsonObject, key: str) -> JsonObject:
    found = obj.get(key)
    return found if isinstance(found, dict) else {}
