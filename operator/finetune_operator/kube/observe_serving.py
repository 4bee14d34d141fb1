"""Reads a served Model's objects and pods, live: served Models are few, and change rarely."""

import asyncio

from finetune_api import names
from finetune_api.model import Model
from finetune_operator.build.serving import serving_of
from finetune_operator.core.serving.decide import Child, ObservedServing
from finetune_operator.core.serving.pods import ServingPod
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client

NOT_FOUND = 404


async def observe_serving(client: Client, model: Model, *, reads_policy: bool) -> ObservedServing:
    """reads_policy: whether the operator may read NetworkPolicies. Raises ApiError."""
    kinds = ["Deployment", "Service", "Lease", *(["NetworkPolicy"] if reads_policy else [])]
    *children, pods = await asyncio.gather(
        *(_read(client, kind, model) for kind in kinds), _pods(client, model)
    )
    found = tuple(child for child in children if isinstance(child, Child))
    return ObservedServing(model, found, pods if isinstance(pods, tuple) else ())


async def _read(client: Client, kind: str, model: Model) -> Child | None:
    collection = paths.of_kind(kind, model.metadata.namespace)
    try:
        raw = await client.get(f"{collection}/{serving_of(model)}")
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise
    return Child.parse(kind, raw)


async def _pods(client: Client, model: Model) -> tuple[ServingPod, ...]:
    selector = (
        f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_UID}={model.metadata.uid},"
        f"{names.LABEL_COMPONENT}={names.COMPONENT_SERVING}"
    )
    path = paths.core(model.metadata.namespace, "pods")
    return tuple(ServingPod.parse(raw) for raw in await client.list(path, labelSelector=selector))
