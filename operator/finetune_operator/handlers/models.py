"""A Model whose files go with it: one look, one decision, its few requests."""

import asyncio
from datetime import UTC, datetime

from finetune_api import names
from finetune_api.model import Model
from finetune_operator.core.deletion import ModelPlan, decide_model
from finetune_operator.core.observed import Job
from finetune_operator.kube import paths
from finetune_operator.kube.act import create_ours, delete_job
from finetune_operator.kube.client import ApiError, Client, JsonObjects
from finetune_operator.settings import Settings


async def reconcile_model(
    client: Client, settings: Settings, namespace: str, name: str
) -> float | None:
    """Seconds until the next look; None: a trigger will come, or it is gone."""
    path = f"{paths.models(namespace)}/{name}"
    try:
        model = Model.parse(await client.get(path))
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    job = await _deletion_job(client, model) if model.metadata.deletion_timestamp else None
    plan = decide_model(model, job, settings, datetime.now(UTC))
    if plan.create is not None:
        await create_ours(client, namespace, model.metadata.uid, plan.create)
    await _write(client, path, model, plan)
    if plan.delete is not None:
        await delete_job(client, namespace, plan.delete)
    return plan.requeue_after


async def _deletion_job(client: Client, model: Model) -> Job | None:
    namespace = model.metadata.namespace
    selector = (
        f"{names.LABEL_UID}={model.metadata.uid},{names.LABEL_COMPONENT}={names.COMPONENT_DELETION}"
    )
    jobs, pods = await asyncio.gather(
        client.list(paths.jobs(namespace), labelSelector=selector),
        client.list(paths.core(namespace, "pods"), labelSelector=selector),
    )
    return Job.parse(jobs[0], pods) if jobs else None


async def _write(client: Client, path: str, model: Model, plan: ModelPlan) -> None:
    """The status, then the finalizers: what they release is gone afterwards."""
    same: JsonObjects = [{"op": "test", "path": "/metadata/uid", "value": model.metadata.uid}]
    if plan.status != model.status:
        value = plan.status.to_dict()
        patch = {"op": "add", "path": "/status", "value": value}
        await client.json_patch(f"{path}/status", [*same, patch])
    elif plan.finalizers != model.metadata.finalizers:
        version = model.metadata.resource_version
        await client.json_patch(
            path,
            [
                *same,
                {"op": "test", "path": "/metadata/resourceVersion", "value": version},
                {"op": "add", "path": "/metadata/finalizers", "value": plan.finalizers},
            ],
        )
