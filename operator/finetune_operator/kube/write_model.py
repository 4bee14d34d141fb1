"""Writes the status and the finalizers of a Model, if it is still the Model that was read."""

from finetune_api.finetune import Metadata
from finetune_api.model import Model, ModelStatus
from finetune_api.wire import JsonObject
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client


async def write_model_status(client: Client, model: Model, status: ModelStatus) -> None:
    patch = {"op": "add", "path": "/status", "value": status.to_dict()}
    await _patch(client, model.metadata, "/status", patch)


async def write_finalizers(client: Client, meta: Metadata, finalizers: list[str]) -> None:
    patch = {"op": "add", "path": "/metadata/finalizers", "value": finalizers}
    await _patch(client, meta, "", patch)


async def _patch(client: Client, meta: Metadata, subresource: str, patch: JsonObject) -> None:
    """Test the UID and the version: a slow operator must not undo the work of another one."""
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version}
    same: list[JsonObject] = [{"op": "test", "path": "/metadata/uid", "value": meta.uid}, version]
    path = f"{paths.models(meta.namespace)}/{meta.name}{subresource}"
    try:
        await client.json_patch(path, [*same, patch])
    except ApiError as error:
        if error.status != 404:  # gone
            raise
