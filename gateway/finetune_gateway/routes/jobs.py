"""OpenAI's fine-tuning API: `/v1/fine_tuning/jobs`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from finetune_api.finetune import FineTune
from finetune_api.wire import JsonObject
from finetune_gateway.routes.context import services
from finetune_gateway.routes.creation import create_finetune
from finetune_gateway.routes.lookup import (
    find_finetune,
    find_model,
    known_files,
    list_metadata,
    parse_all,
    read_objects,
    require,
)
from finetune_gateway.routes.steering import Action, steer
from finetune_gateway.routes.streams import stream_events, wants_stream
from finetune_gateway.wire.events import job_events
from finetune_gateway.wire.finetunes import annotations_of, name_of, parse_finetune
from finetune_gateway.wire.ids import finetune_names
from finetune_gateway.wire.jobs import job_object
from finetune_gateway.wire.metrics import MetricsRow, read_rows
from finetune_gateway.wire.object_marks import read_metadata
from finetune_gateway.wire.pages import PageQuery, cut, list_object, parse_page
from finetune_web.answers import json_response
from finetune_web.problems import invalid

_FILTER = re.compile(r"metadata\[(.*)\]", re.DOTALL)


async def create(request: web.Request) -> web.Response:
    return _answer(request, await create_finetune(request, "job"))


async def get(request: web.Request) -> web.Response:
    return _answer(request, await find_finetune(request, request.match_info["id"]))


async def list_jobs(request: web.Request) -> web.Response:
    """A page, the newest first. Only the FineTunes of the page are read in full."""
    page = parse_page(request.query)
    wanted = _parse_filter(request)
    listed = [obj for obj in await list_metadata(request) if _has_metadata(obj, wanted)]
    if page.order == "desc":
        listed.reverse()
    found = cut(listed, _with_name(page, listed), name_of)
    parts = services(request)
    finetunes = parse_all(await read_objects(request, found.items), parse_finetune)
    files, organization = known_files(parts, finetunes), parts.settings.shown_organization
    data = [job_object(finetune, files, organization) for finetune in finetunes]
    return json_response(list_object(data, found.has_more))


async def cancel(request: web.Request) -> web.Response:
    return await _steer(request, "cancel")


async def pause(request: web.Request) -> web.Response:
    return await _steer(request, "pause")


async def resume(request: web.Request) -> web.Response:
    return await _steer(request, "resume")


async def list_events(request: web.Request) -> web.StreamResponse:
    """A page of the events, the newest first: the messages, and a row of results.csv each.

    With `stream=true`, as in the fine-tunes API: the messages, the oldest first.
    """
    if wants_stream(request):
        return await stream_events(request, request.match_info["id"], "job")
    page = parse_page(request.query)
    finetune = await find_finetune(request, request.match_info["id"])
    content = await services(request).files.read_results(finetune)
    # A long training has a file of several megabytes.
    rows: Sequence[MetricsRow] = await asyncio.to_thread(read_rows, content or b"")
    events = await asyncio.to_thread(job_events, finetune, rows)
    if page.order == "asc":
        events.reverse()
    found = cut(events, page, lambda event: event.id)
    return json_response(list_object([event.build() for event in found.items], found.has_more))


async def list_checkpoints(request: web.Request) -> web.Response:
    """No checkpoint is a model of its own, so the list is empty."""
    page = parse_page(request.query)
    await find_finetune(request, request.match_info["id"])
    return json_response(list_object(cut([], page, str).items))


async def list_permissions(request: web.Request) -> web.Response:
    """Permissions are Roles of the namespace, so the list is empty."""
    page = parse_page(request.query)
    await find_model(request, request.match_info["model"])
    return json_response(list_object(cut([], page, str).items))


async def refuse_permissions(request: web.Request) -> web.Response:
    await require(request, "get", "models")
    namespace = services(request).settings.namespace
    raise invalid(
        "Permissions of a model are not supported: everyone who may read the Models of "
        f"{namespace} may use them. Bind the role finetune-user to a user.",
        code="unsupported",
    )


async def _steer(request: web.Request, action: Action) -> web.Response:
    return _answer(request, await steer(request, request.match_info["id"], action))


def _answer(request: web.Request, finetune: FineTune) -> web.Response:
    parts = services(request)
    files = known_files(parts, [finetune])
    return json_response(job_object(finetune, files, parts.settings.shown_organization))


def _with_name(page: PageQuery, objects: Sequence[JsonObject]) -> PageQuery:
    """The page after the FineTune that the id, or its other forms, means."""
    listed = {name_of(obj) for obj in objects}
    names = (name for name in finetune_names(page.after or "") if name in listed)
    return replace(page, after=next(names, page.after))


def _parse_filter(request: web.Request) -> dict[str, str] | None:
    """The metadata that a job must have. None: it must have none (`metadata=null`)."""
    plain = request.query.get("metadata")
    wanted = {found[1]: text for key, text in request.query.items() if (found := _match(key))}
    if plain is None:
        return wanted
    if plain != "null" or wanted:
        raise invalid(
            f"metadata is {plain[:100]!r}, but it must be null, or metadata[KEY]=VALUE.", "metadata"
        )
    return None


def _match(key: str) -> re.Match[str] | None:
    return _FILTER.fullmatch(key)


def _has_metadata(obj: JsonObject, wanted: dict[str, str] | None) -> bool:
    if wanted == {}:
        return True
    found = read_metadata(annotations_of(obj))
    return not found if wanted is None else wanted.items() <= (found or {}).items()


_JOBS = "/v1/fine_tuning/jobs"
_PERMISSIONS = "/v1/fine_tuning/checkpoints/{model}/permissions"
ROUTES: list[web.RouteDef] = [
    web.post(_JOBS, create),
    web.get(_JOBS, list_jobs),
    web.get(f"{_JOBS}/{{id}}", get),
    web.post(f"{_JOBS}/{{id}}/cancel", cancel),
    web.post(f"{_JOBS}/{{id}}/pause", pause),
    web.post(f"{_JOBS}/{{id}}/resume", resume),
    web.get(f"{_JOBS}/{{id}}/events", list_events),
    web.get(f"{_JOBS}/{{id}}/checkpoints", list_checkpoints),
    web.get(_PERMISSIONS, list_permissions),
    web.post(_PERMISSIONS, refuse_permissions),
    web.delete(f"{_PERMISSIONS}/{{permission}}", refuse_permissions),
]
