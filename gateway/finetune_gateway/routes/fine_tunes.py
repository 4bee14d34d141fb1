"""OpenAI's fine-tunes API: `/v1/fine-tunes`."""

from __future__ import annotations

from aiohttp import web

from finetune_api.finetune import FineTune
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.creation import create_finetune
from finetune_gateway.routes.lookup import (
    asking,
    described_files,
    find_finetune,
    list_finetunes,
    parse_all,
)
from finetune_gateway.routes.steering import steer
from finetune_gateway.routes.streams import stream_events, wants_stream
from finetune_gateway.wire.events import fine_tune_events
from finetune_gateway.wire.fine_tunes import OBJECT, fine_tune_object
from finetune_gateway.wire.finetunes import parse_finetune
from finetune_gateway.wire.ids import shown_id
from finetune_gateway.wire.models import deleted_object
from finetune_gateway.wire.pages import cut, list_object, parse_page
from finetune_web.answers import json_response


async def create(request: web.Request) -> web.Response:
    return await _answer(request, await create_finetune(request, "fine-tune"))


async def get(request: web.Request) -> web.Response:
    return await _answer(request, await find_finetune(request, request.match_info["id"]))


async def cancel(request: web.Request) -> web.Response:
    return await _answer(request, await steer(request, request.match_info["id"], "cancel"))


async def list_all(request: web.Request) -> web.Response:
    """Every FineTune, oldest first and without events: the clients of this API have no pages."""
    page = parse_page(request.query, default=None, order="asc")
    parts = services(request)
    finetunes = parse_all(await list_finetunes(request), parse_finetune)
    if page.order == "desc":
        finetunes.reverse()
    found = cut(finetunes, page, lambda item: shown_id(item.metadata.name, "fine-tune"))
    files = await described_files(parts, found.items)
    organization = parts.settings.shown_organization
    data = [fine_tune_object(item, files, organization, has_events=False) for item in found.items]
    return json_response(list_object(data, found.has_more))


async def delete(request: web.Request) -> web.Response:
    """Delete the FineTune, and with it its Jobs. Its Model and files stay."""
    job_id = request.match_info["id"]
    finetune = await find_finetune(request, job_id)
    name = finetune.metadata.name
    with asking(request, "delete", "finetunes", job_id):
        await services(request).cluster.delete(caller(request), "finetunes", name)
    return json_response(deleted_object(shown_id(name, "fine-tune"), OBJECT))


async def list_events(request: web.Request) -> web.StreamResponse:
    if wants_stream(request):
        return await stream_events(request, request.match_info["id"], "fine-tune")
    finetune = await find_finetune(request, request.match_info["id"])
    return json_response(list_object(fine_tune_events(finetune)))


async def _answer(request: web.Request, finetune: FineTune) -> web.Response:
    parts = services(request)
    files = await described_files(parts, [finetune])
    organization = parts.settings.shown_organization
    return json_response(fine_tune_object(finetune, files, organization))


ROUTES: list[web.RouteDef] = [
    web.post("/v1/fine-tunes", create),
    web.get("/v1/fine-tunes", list_all),
    web.get("/v1/fine-tunes/{id}", get),
    web.delete("/v1/fine-tunes/{id}", delete),
    web.post("/v1/fine-tunes/{id}/cancel", cancel),
    web.get("/v1/fine-tunes/{id}/events", list_events),
]
