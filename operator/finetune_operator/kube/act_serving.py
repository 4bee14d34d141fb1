"""Carries out the plan of a served Model: creations, changes, and deletions of its objects."""

from finetune_api.finetune import Metadata
from finetune_api.wire import JsonObject
from finetune_operator.core.serving.decide import (
    ChangeChild,
    CreateChild,
    DeleteChild,
    ServingAction,
)
from finetune_operator.kube import paths
from finetune_operator.kube.act import CONFLICT, NOT_FOUND, RefusedError, create_ours, to_refusal
from finetune_operator.kube.client import ApiError, Client


async def act_serving(client: Client, meta: Metadata, action: ServingAction) -> None:
    """meta: of the Model. Raises RefusedError, and ForeignObjectError for a taken name.

    An object that has changed since it was observed is not touched: its change is a trigger.
    """
    if isinstance(action, CreateChild):
        await create_ours(client, meta.namespace, meta.uid, action.manifest)
        return
    child = action.child
    path = f"{paths.of_kind(child.kind, meta.namespace)}/{child.name}"
    try:
        if isinstance(action, ChangeChild):
            await client.json_patch(path, _patch(action))
        else:
            preconditions = {"uid": child.uid, "resourceVersion": child.version}
            body = {"propagationPolicy": "Background", "preconditions": preconditions}
            await client.delete(path, body)
    except ApiError as error:
        if error.status in {NOT_FOUND, CONFLICT} or error.is_outdated:
            return
        verb = "delete" if isinstance(action, DeleteChild) else "change"
        refusal = to_refusal(verb, child.kind, child.name, error)
        raise RefusedError(refusal, error) from error


def _patch(action: ChangeChild) -> list[JsonObject]:
    child = action.child
    return [
        {"op": "test", "path": "/metadata/uid", "value": child.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": child.version},
        *({"op": "add", "path": path, "value": value} for path, value in action.values.items()),
    ]
