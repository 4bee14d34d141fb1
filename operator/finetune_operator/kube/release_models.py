"""Releases the Models of a namespace that is deleted together with the operator in it.

Since Kubernetes 1.33, the pods of a namespace are deleted before all other objects. An operator in
the namespace of its Models therefore never sees their deletion, and their finalizers would remain.
It removes them when it receives SIGTERM and its namespace terminates.
"""

import asyncio
import logging
from pathlib import Path

from finetune_api import names
from finetune_api.model import Model
from finetune_operator import messages
from finetune_operator.core.deletion import without_ours
from finetune_operator.core.key import Key
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.observe_model import namespace_terminates, read_model
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
    path = paths.models(namespace)
    held = [
        Model.parse(raw)
        async for raw in client.pages(path)
        if names.FINALIZER_MODEL in raw["metadata"].get("finalizers", [])
    ]
    if not held or not await _terminates(client, settings, held[0]):
        return
    for model in held:
        await _release_model(client, model)


async def _terminates(client: Client, settings: Settings, model: Model) -> bool:
    for left in reversed(range(PROBES)):
        if await namespace_terminates(client, settings, model):
            return True
        if left:
            await asyncio.sleep(PROBE_SECONDS)
    return False


async def _release_model(client: Client, model: Model) -> None:
    meta = model.metadata
    logger.warning(
        "Model %s is released: %s",
        meta.name,
        messages.files_kept_in_namespace(meta.namespace, model.spec.uri),
    )
    newest: Model | None = model
    for left in reversed(range(TRIES)):
        if newest is None:
            return
        try:
            return await write_finalizers(client, newest, without_ours(newest))
        except ApiError as error:
            if not left:
                raise
            logger.info("Model %s is read again: %s", meta.name, error)
            newest = await read_model(client, Key(meta.namespace, meta.name, "Model"))
