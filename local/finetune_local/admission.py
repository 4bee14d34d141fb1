"""What the API server of a cluster checks before an object exists, with the same answers."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from finetune_api.crd.rules import MUTABLE_FIELDS, MUTABLE_MODEL_FIELDS
from finetune_api.finetune_spec import FineTuneSpec
from finetune_api.names import FINALIZER_MODEL
from finetune_api.unknown_fields import find_unknown_fields
from finetune_api.wire import JsonObject
from finetune_gateway.kube.cluster import Plural
from finetune_gateway.kube.kube_cluster import OBJECT_NAME
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.wire.creation import merge
from finetune_local.rules import broken_rules

SHOWN_CHARACTERS = 80  # of a value in a message


def admit(body: JsonObject, gpus: int) -> JsonObject:
    """A new FineTune for this machine: one node with all of its GPUs.

    gpus: of the machine; 0: it trains on the CPU. Raises KubeError.
    """
    name = body.get("metadata", {}).get("name", "")
    if OBJECT_NAME.fullmatch(name) is None:
        raise _invalid([("metadata.name", f"{name!r:.80} is not the name of an object")])
    spec = body.get("spec", {})
    for unknown in find_unknown_fields(spec, FineTuneSpec, "spec"):
        raise KubeError(400, f'strict decoding error: unknown field "{unknown.path}.{unknown.key}"')
    resources = {**(spec.get("resources") or {}), "nodes": 1, "gpusPerNode": gpus}
    spec = {**spec, "resources": resources}
    try:
        parsed = FineTuneSpec.model_validate(spec, strict=True)
    except ValidationError as error:
        raise _invalid([_cause(dict(item)) for item in error.errors(include_url=False)]) from error
    if broken := [("spec", message) for message in broken_rules(parsed)]:
        raise _invalid(broken)
    return {**body, "spec": spec, "status": {}}


def change(obj: JsonObject, plural: Plural, patch: JsonObject) -> JsonObject:
    """The object after a merge patch. Raises KubeError for a field that cannot change."""
    fields = MUTABLE_FIELDS if plural == "finetunes" else MUTABLE_MODEL_FIELDS
    for field in patch.get("spec", {}):
        if field not in fields:
            raise _invalid([(f"spec.{field}", "the field cannot change")])
    changed = merge(obj, {"spec": patch.get("spec", {})})
    if plural == "finetunes" and obj["spec"].get("cancel") and not changed["spec"].get("cancel"):
        raise _invalid([("spec.cancel", "a cancellation is final")])
    metadata = dict(changed["metadata"])
    metadata["generation"] = metadata.get("generation", 1) + 1
    if plural == "models":  # as the operator does, which is slower than the deletion that follows
        deletes = changed["spec"].get("deletionPolicy") == "Delete"
        metadata["finalizers"] = [FINALIZER_MODEL] if deletes else []
    return {**changed, "metadata": metadata}


def _cause(found: dict[str, Any]) -> tuple[str, str]:
    """A field and its message, in the forms of the API server."""
    path = "spec" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"]
    )
    if found["type"] == "missing":
        return path, "Required value"
    if found["type"] == "value_error":  # a rule across fields, which names them itself
        return "spec", str(found["ctx"]["error"])
    rule = str(found["msg"]).replace("Input should be", "must be").replace("should", "must", 1)
    rule = rule if rule.startswith("must") else f"must satisfy: {rule[:1].lower()}{rule[1:]}"
    shown = json.dumps(found["input"], default=str)
    if len(shown) > SHOWN_CHARACTERS:
        return path, rule
    return path, f"Invalid value: {shown}: {rule}"


def _invalid(causes: list[tuple[str, str]]) -> KubeError:
    message = "; ".join(f"{field}: {text}" for field, text in causes)
    return KubeError(422, message, reason="Invalid", causes=tuple(causes))
