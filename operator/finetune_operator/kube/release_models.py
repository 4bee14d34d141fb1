"""Releases the Models of a namespace that is deleted together with the operator in it.

Since Kubernetes 1.33, the pods of a namespace are deleted before all other objects. An operator in
the namespace of its Models therefore never sees their deletion, and their finalizers would remain.
It removes them when it receives SIGTERM and its namespace terminates.
"""

import asyncio
import logging
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from finetune_api import names
from finetune_api.finetune import Metadata
from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_operator import messages
from finetune_operator.core.deletion import without_ours
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client, JsonObjects
from finetune_operator.kube.observe_model import namespace_terminates
from finetune_operator.kube.write_model import write_finalizers
from finetune_operator.settings import Settings

RELEASE_SECONDS = 15.0  # of the 30 s between SIGTERM and SIGKILL
PROBES, PROBE_SECONDS = 2, 1.0  # another API server may learn of the deletion a moment later
TRIES = 3  # if another client changes the Model
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

logger = logging.getLogger(__name__)


async def release_models(client: Client, settings: Settings) -> None:
    """Release the Models if the operator's namespace terminates. Errors are only logged."""
    namespace = settings.namespace or _own_namespace()
    if not namespace:
        return
    try:
        async with asyncio.timeout(RELEASE_SECONDS):
            await _release(client, settings, namespace)
    except (ApiError, TimeoutError) as error:
        logger.warning("the Models of namespace %s cannot be released: %s", namespace, error)


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE.read_text().strip()
    except OSError:
        return ""


async def _release(client: Client, settings: Settings, namespace: str) -> None:
    held = [
        raw
        async for raw in client.pages(paths.models(namespace))
        if names.FINALIZER_MODEL in raw["metadata"].get("finalizers", [])
    ]
    if not held or not await _terminates(client, settings, held):
        return
    for raw in held:
        meta, uri = raw["metadata"], str(raw.get("spec", {}).get("uri"))
        kept = messages.files_kept_in_namespace(namespace, uri)
        logger.warning("Model %s is released: %s", meta["name"], kept)
        await _release_model(client, f"{paths.models(namespace)}/{meta['name']}", raw)


async def _terminates(client: Client, settings: Settings, held: JsonObjects) -> bool:
    """Ask with the deletion Job of the first Model that this version can read."""
    model: Model | None = None
    for raw in held:
        with suppress(ValidationError):
            model = Model.parse(raw)
            break
    for left in reversed(range(PROBES)):
        if model is None:
            return False
        if await namespace_terminates(client, settings, model):
            return True
        if left:
            await asyncio.sleep(PROBE_SECONDS)
    return False


async def _release_model(client: Client, path: str, raw: JsonObject) -> None:
    for left in reversed(range(TRIES)):
        meta = Metadata.model_validate(raw["metadata"])
        try:
            return await write_finalizers(client, meta, without_ours(meta))
        except ApiError as error:
            if not left:
                raise
            logger.info("Model %s is read again: %s", meta.name, error)
        try:
            raw = await client.get(path)
        except ApiError as error:
            if error.status == 404:
                return
            raise
