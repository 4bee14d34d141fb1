"""The creation of a FineTune by either API.

The new clients repeat a POST whose answer they did not get. A repeated request is answered with
the FineTune that the first one has made: its label has a digest of the caller and the request, and
so does its name, for the case that both arrive at the same time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aiohttp import web

from finetune_api.catalog import CatalogModel
from finetune_api.finetune import FineTune
from finetune_api.names import LABEL_REQUEST
from finetune_api.wire import JsonObject
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.routes.context import caller, read_object, services
from finetune_gateway.routes.lookup import asking, find_model, list_finetunes, require
from finetune_gateway.wire.creation import build_finetune, named_files, unknown_model
from finetune_gateway.wire.finetunes import parse_finetune
from finetune_gateway.wire.ids import Form, is_file_id, new_name
from finetune_gateway.wire.object_marks import request_label
from finetune_gateway.wire.request_bodies import CreationBody, parse_creation
from finetune_gateway.wire.timestamps import parse_time
from finetune_web.problems import Problem, unavailable

IDEMPOTENCY_KEY, RETRY_COUNT = "Idempotency-Key", "x-stainless-retry-count"
KEY_SECONDS, RETRY_SECONDS = 24 * 3600, 600
NAMES_AT_MOST = 5  # with random digits, one of which is free
TRAINING_PURPOSE = "fine-tune"
_COUNT = re.compile(r"[0-9]{1,6}")


class Repetition(NamedTuple):
    """How a request finds the FineTune of an equal one before it."""

    label: str
    seconds: int  # for which the FineTune of an earlier request is the answer; 0: it is not
    digits: str | None  # of the name, which only one of several equal requests gets


async def create_finetune(request: web.Request, form: Form) -> FineTune:
    """The new FineTune, or that of the same request before. Raise Problem."""
    content = await read_object(request)
    await require(request, "create", "finetunes")  # before the store and the models are asked
    body = parse_creation(content, form)
    repetition = _repetition(request, content)
    if repetition.seconds:
        found = await _find_earlier(request, repetition)
        if found is not None:
            return found
    defaults = await _defaults(request, body.model)
    addresses = await _addresses(request, body)
    digits = repetition.digits
    for _ in range(NAMES_AT_MOST):
        name = new_name(body.model, body.suffix, digits)
        manifest = build_finetune(
            body, name=name, label=repetition.label, defaults=defaults, addresses=addresses
        )
        try:
            with asking(request, "create", "finetunes", fields=body.fields):
                return parse_finetune(await _create(request, manifest))
        except _NameTakenError:
            if repetition.seconds and digits:
                found = await _find_earlier(request, repetition)
                if found is not None:
                    return found
            digits = None
    raise unavailable("No name for the fine-tune is free. Try again.")


class _NameTakenError(Exception):
    """Another FineTune has the name."""


async def _create(request: web.Request, manifest: JsonObject) -> JsonObject:
    try:
        return await services(request).cluster.create(caller(request), "finetunes", manifest)
    except KubeError as error:
        if error.status == web.HTTPConflict.status_code:
            raise _NameTakenError from error
        raise


def _repetition(request: web.Request, content: JsonObject) -> Repetition:
    key = request.headers.get(IDEMPOTENCY_KEY, "")
    label = request_label(caller(request).fingerprint, request.path, key or content)
    if key:
        return Repetition(label, KEY_SECONDS, digits=label)
    count = request.headers.get(RETRY_COUNT, "")
    if _COUNT.fullmatch(count) is None:
        return Repetition(label, 0, digits=None)
    return Repetition(label, RETRY_SECONDS if int(count) > 0 else 0, digits=label)


async def _find_earlier(request: web.Request, repetition: Repetition) -> FineTune | None:
    """The newest FineTune of an equal request that is not older than the time for repetitions."""
    objects = await list_finetunes(request, f"{LABEL_REQUEST}={repetition.label}")
    since = datetime.now(UTC) - timedelta(seconds=repetition.seconds)
    for obj in reversed(objects):
        finetune = parse_finetune(obj)
        created = parse_time(finetune.metadata.creation_timestamp)
        if created is not None and created >= since:
            return finetune
    return None


async def _defaults(request: web.Request, model: str) -> JsonObject:
    """The administrator's part of the spec, which is that of the base model."""
    try:
        found = await find_model(request, model)
    except Problem as problem:
        if problem.status == web.HTTPNotFound.status_code:
            raise unknown_model(model) from problem
        raise
    entry: CatalogModel | None
    if isinstance(found, CatalogModel):
        entry = found
    else:
        entry = services(request).settings.model(found.spec.base)
    return (entry.fine_tune if entry else None) or {}


async def _addresses(request: web.Request, body: CreationBody) -> dict[str, str]:
    """The addresses of the uploaded files that the request names."""
    found = {}
    for file_id in named_files(body):
        file = await services(request).files.find(file_id) if is_file_id(file_id) else None
        if file is not None and file.purpose == TRAINING_PURPOSE:
            found[file_id] = str(file.uri)
    return found
