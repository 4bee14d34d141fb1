"""Model objects: the base models of the catalog, and the fine-tuned ones."""

from __future__ import annotations

from finetune_api.catalog import CatalogModel
from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_gateway.wire.timestamps import unix

OBJECT = "model"
SYSTEM = "system"  # the owner of base models


def catalog_object(entry: CatalogModel) -> JsonObject:
    """A base model. The catalog has no dates, so `created` is 0."""
    return _object(entry.name, 0, SYSTEM, entry.name, None)


def model_object(model: Model, organization: str) -> JsonObject:
    """A fine-tuned model. root: its base model. parent: the model that it continued from."""
    spec = model.spec
    at = unix(model.metadata.creation_timestamp) or 0
    return _object(spec.id, at, organization, spec.base, spec.parent or spec.base)


def deleted_object(object_id: str, kind: str) -> JsonObject:
    """The answer to a deletion. kind: the `object` of what was deleted."""
    return {"id": object_id, "object": kind, "deleted": True}


def _object(model_id: str, created: int, owner: str, root: str, parent: str | None) -> JsonObject:
    return {
        "id": model_id,
        "object": OBJECT,
        "created": created,
        "owned_by": owner,
        "permission": [],
        "root": root,
        "parent": parent,
    }
