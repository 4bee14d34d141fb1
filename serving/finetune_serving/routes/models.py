"""GET /v1/models: the models of the command line and those in memory."""

from __future__ import annotations

import time

from aiohttp import web

from finetune_api.text.sanitizing import sanitize
from finetune_serving.problems import unknown_model
from finetune_serving.routes.context import Services, services
from finetune_serving.wire.envelopes import model_object
from finetune_web.answers import json_response

STARTED = int(time.time())


def build_routes() -> list[web.RouteDef]:
    return [web.get("/v1/models", _list), web.get("/v1/models/{model}", _retrieve)]


async def _list(request: web.Request) -> web.Response:
    names = _names(services(request))
    return json_response(
        {"object": "list", "data": [model_object(name, STARTED) for name in names]}
    )


async def _retrieve(request: web.Request) -> web.Response:
    name = request.match_info["model"]
    if name not in _names(services(request)):
        raise unknown_model(sanitize(name[:256]))
    return json_response(model_object(name, STARTED))


def _names(parts: Services) -> list[str]:
    loaded = (address.name for address in parts.pool.loaded)
    return [*dict.fromkeys([*parts.source.names(), *loaded])]
