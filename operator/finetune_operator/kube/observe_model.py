"""Reads a Model and its deletion Job from the API server."""

import asyncio

from finetune_api import names
from finetune_api.model import Model
from finetune_operator.core.key import Key
from finetune_operator.core.observed import Job
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client


async def observe_model(client: Client, key: Key) -> tuple[Model, Job | None] | None:
    """Return the Model and its deletion Job, if there is one; None if the Model is gone."""
    try:
        model = Model.parse(await client.get(f"{paths.models(key.namespace)}/{key.name}"))
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    job = await _deletion_job(client, model) if model.metadata.deletion_timestamp else None
    return model, job


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
