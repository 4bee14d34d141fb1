"""Reads a Model, its deletion Job, and the objects that may need its files."""

import asyncio
import logging
from collections.abc import Callable

from pydantic import ValidationError

from finetune_api import names
from finetune_api.finetune import Metadata
from finetune_api.model import Model
from finetune_api.wire import JsonObject
from finetune_operator.build.deletion_job import build_deletion_job, deletion_name
from finetune_operator.core.deletion import ObservedModel, has_files_to_delete, is_done
from finetune_operator.core.key import Key
from finetune_operator.core.model_files import (
    continues_from,
    find_address_problem,
    may_adopt,
    shares_files,
)
from finetune_operator.core.observed import Job
from finetune_operator.core.refusals import is_terminating
from finetune_operator.kube import paths
from finetune_operator.kube.client import ApiError, Client
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.rare_reads import RareReads
from finetune_operator.kube.waiting import with_refusal
from finetune_operator.settings import Settings

OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
DELETION_JOBS = f"{OURS},{names.LABEL_COMPONENT}={names.COMPONENT_DELETION}"

logger = logging.getLogger(__name__)


class UnreadableModelError(Exception):
    """A Model that this version cannot read, such as one of a newer version."""

    def __init__(self, meta: Metadata, cause: ValidationError) -> None:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        super().__init__(f"Model {meta.name} cannot be read ({where}: {first['msg']})")
        self.metadata = meta


async def read_model(client: Client, key: Key) -> Model | None:
    """Return None if the Model is gone. Raise UnreadableModelError if it cannot be parsed."""
    try:
        raw = await client.get(f"{paths.models(key.namespace)}/{key.name}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    try:
        return Model.parse(raw)
    except ValidationError as error:
        meta = Metadata.model_validate(raw["metadata"])
        raise UnreadableModelError(meta, error) from error


async def read_jobs(client: Client, key: Key) -> tuple[Job, ...]:
    """All deletion Jobs of Models with this name, without their pods."""
    found = await client.list(paths.jobs(key.namespace), labelSelector=DELETION_JOBS)
    return tuple(
        Job.parse(raw, [])
        for raw in found
        if raw["metadata"].get("annotations", {}).get(names.ANNOTATION_MODEL) == key.name
    )


async def observe_model(
    client: Client,
    settings: Settings,
    kueue: Kueue,
    model: Model,
    jobs: tuple[Job, ...],
    *,
    rare: RareReads,
    former_user: str | None = None,
) -> ObservedModel:
    """Read what the decision needs. former_user: the FineTune that needed the files before."""
    if not has_files_to_delete(model):
        return ObservedModel(model)
    name = deletion_name(model)
    known = next((job for job in jobs if job.name == name), None)
    if known is not None:
        job = await _with_pods(client, rare, model, known)
        if is_done(job):
            return ObservedModel(model, job)
        if job.is_suspended:
            job = await kueue.explain(model.metadata.namespace, job)
        terminates = await namespace_terminates(client, settings, model)
        return ObservedModel(model, job, namespace_is_terminating=terminates)
    if find_address_problem(model) is not None:
        return ObservedModel(model)
    namespace = model.metadata.namespace
    shared_with = await _find(
        client, paths.models(namespace), lambda other: shares_files(model, other)
    )
    if shared_with is not None:
        return ObservedModel(model, shared_with=shared_with)
    used_by = await _find_user(client, model, former_user)
    # Without a user a Job is created next, and the answer says whether the namespace terminates.
    terminates = used_by is not None and await namespace_terminates(client, settings, model)
    return ObservedModel(model, used_by=used_by, namespace_is_terminating=terminates)


async def namespace_terminates(client: Client, settings: Settings, model: Model) -> bool:
    """Whether the namespace of the Model refuses new objects because it is being deleted.

    The dry run of a creation answers this without permission to read namespaces. The API server
    checks the namespace before anything else, such as an existing Job of that name.
    """
    namespace, job = model.metadata.namespace, build_deletion_job(model, settings)
    try:
        await client.create(paths.jobs(namespace), job, dryRun="All")
    except ApiError as error:
        return is_terminating(error.causes)
    return False


async def _with_pods(client: Client, rare: RareReads, model: Model, job: Job) -> Job:
    namespace = model.metadata.namespace
    selector = f"{names.LABEL_UID}={model.metadata.uid},{DELETION_JOBS}"
    raw, pods = await asyncio.gather(
        client.get(f"{paths.jobs(namespace)}/{job.name}"),
        client.list(paths.core(namespace, "pods"), labelSelector=selector),
    )
    return await with_refusal(client, namespace, Job.parse(raw, pods), rare)


async def _find_user(client: Client, model: Model, former_user: str | None) -> str | None:
    """An unfinished FineTune that needs the files. The former one is read first, without a list."""
    path = paths.finetunes(model.metadata.namespace)
    if former_user is not None:
        try:
            if _needs(await client.get(f"{path}/{former_user}"), model):
                return former_user
        except ApiError as error:
            if error.status != 404:
                raise
    return await _find(client, path, lambda finetune: _needs(finetune, model))


def _needs(finetune: JsonObject, model: Model) -> bool:
    """Whether an unfinished FineTune needs the files of the Model, or is about to."""
    return continues_from(finetune, model) or may_adopt(finetune, model)


async def _find(client: Client, path: str, matches: Callable[[JsonObject], bool]) -> str | None:
    """The name of the first object that matches, read in pages."""
    async for raw in client.pages(path):
        if matches(raw):
            return str(raw["metadata"]["name"])
    return None
