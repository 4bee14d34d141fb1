"""FineTunes and Models as the caller sees them, and what the API server's refusals mean."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar

from aiohttp import web

from finetune_api.catalog import CatalogModel
from finetune_api.finetune import FineTune
from finetune_api.model import Model
from finetune_api.model_names import resource_name
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_gateway.kube.cluster import Plural, Verb
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.routes.context import Services, caller, services
from finetune_gateway.wire.file_objects import KnownFiles
from finetune_gateway.wire.finetunes import name_of, parse_finetune, parse_model, sort_key
from finetune_gateway.wire.ids import Artifact, finetune_names
from finetune_gateway.wire.kube_answers import Asked, explain, lacks_permission, no_such
from finetune_gateway.wire.request_fields import RequestFields
from finetune_web.problems import Problem

logger = logging.getLogger(__name__)

T = TypeVar("T")


@contextmanager
def asking(
    request: web.Request,
    verb: Verb,
    plural: Plural,
    shown: str = "",
    fields: RequestFields | None = None,
) -> Iterator[Asked]:
    """Turn the refusals of the API server within it into Problems.

    shown: the id of the object as the client has it. fields: of the request that creates.
    """
    namespace = services(request).settings.namespace
    asked = Asked(verb, plural, namespace, shown, caller(request).account, fields)
    try:
        yield asked
    except KubeError as error:
        raise explain(error, asked) from error


async def require(request: web.Request, verb: Verb, plural: Plural) -> None:
    """Raise Problem unless the caller is known and has the right."""
    with asking(request, verb, plural) as asked:
        if not await services(request).cluster.may(caller(request), verb, plural):
            raise lacks_permission(asked)


async def find_finetune(request: web.Request, job_id: str) -> FineTune:
    """The FineTune with this id, or with this name. Raise Problem if there is none."""
    cluster = services(request).cluster
    with asking(request, "get", "finetunes", job_id) as asked:
        for name in finetune_names(job_id):
            try:
                return parse_finetune(await cluster.get(caller(request), "finetunes", name))
            except KubeError as error:
                if error.status != web.HTTPNotFound.status_code:
                    raise
        # No FineTune can have this id, so the API server has not been asked who the caller is.
        await require(request, "get", "finetunes")
        raise no_such(asked)


async def list_finetunes(request: web.Request, selector: str = "") -> list[JsonObject]:
    """All FineTunes as objects of the API server, oldest first."""
    with asking(request, "list", "finetunes"):
        cluster = services(request).cluster
        found = await cluster.list(caller(request), "finetunes", label_selector=selector)
    return sorted(found, key=sort_key)


async def list_metadata(request: web.Request) -> list[JsonObject]:
    """The metadata of all FineTunes, oldest first."""
    with asking(request, "list", "finetunes"):
        found = await services(request).cluster.list_metadata(caller(request), "finetunes")
    return sorted(found, key=sort_key)


async def read_objects(request: web.Request, listed: Sequence[JsonObject]) -> list[JsonObject]:
    """The FineTunes with this metadata, in the same order, without those deleted since."""
    cluster = services(request).cluster

    async def read(name: str) -> JsonObject | None:
        try:
            return await cluster.get(caller(request), "finetunes", name)
        except KubeError as error:
            if error.status == web.HTTPNotFound.status_code:
                return None
            raise

    with asking(request, "get", "finetunes"):
        found = await asyncio.gather(*(read(name_of(obj)) for obj in listed))
    return [obj for obj in found if obj is not None]


async def list_models(request: web.Request) -> list[Model]:
    """The fine-tuned models, oldest first."""
    with asking(request, "list", "models"):
        found = await services(request).cluster.list(caller(request), "models")
    return parse_all(sorted(found, key=sort_key), parse_model)


async def find_model(request: web.Request, model_id: str) -> CatalogModel | Model:
    """The base model or fine-tuned model with this id. Raise Problem if there is none."""
    entry = services(request).settings.model(model_id)
    if entry is not None:
        await require(request, "get", "models")
        return entry
    name = resource_name(model_id)
    with asking(request, "get", "models", model_id) as asked:
        if not name:
            await require(request, "get", "models")
            raise no_such(asked)
        model = parse_model(await services(request).cluster.get(caller(request), "models", name))
        if model.spec.id != model_id:
            raise no_such(asked)
    return model


def parse_all(objects: Sequence[JsonObject], parse: Callable[[JsonObject], T]) -> list[T]:
    """The objects that can be read: one of another version must not hide all others."""
    found = []
    for obj in objects:
        try:
            found.append(parse(obj))
        except Problem as problem:
            logger.warning("left out of a list: %s (%s)", name_of(obj), problem.message)
    return found


def known_files(parts: Services, finetunes: Sequence[FineTune]) -> KnownFiles:
    """The ids of the FineTunes' files. Nothing is asked of the store."""
    return KnownFiles(root=parts.settings.files_root, published=_published(parts, finetunes))


async def described_files(parts: Services, finetunes: Sequence[FineTune]) -> KnownFiles:
    """The same with the sizes of uploaded files. A store that does not answer has none."""
    try:
        if len(finetunes) > 1:
            stored = await parts.files.list()
        else:
            uris = {uri for finetune in finetunes for uri in _data_files(finetune)}
            found = [await parts.files.find_by_address(uri) for uri in uris]
            stored = [file for file in found if file is not None]
    except Problem:
        stored = []
    by_address = {str(file.uri): file for file in stored}
    return KnownFiles(parts.settings.files_root, by_address, _published(parts, finetunes))


def _data_files(finetune: FineTune) -> Iterator[S3Uri]:
    """The addresses of the training and validation data, as far as they are valid."""
    spec = finetune.spec
    for address in (*(file.uri for file in spec.training_data), spec.validation_file):
        with suppress(ValueError):
            yield S3Uri.parse(address or "")


def _published(parts: Services, finetunes: Sequence[FineTune]) -> dict[str, Artifact]:
    found = {}
    for finetune in finetunes:
        name = finetune.metadata.name
        for artifact in (Artifact("results", name), Artifact("report", name)):
            uri = parts.files.artifact_uri(artifact, finetune)
            if uri is not None:
                found[str(uri)] = artifact
    return found
