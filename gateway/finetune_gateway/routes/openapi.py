"""The OpenAPI document of the gateway: `/v1/openapi.json`."""

from __future__ import annotations

from aiohttp import web

from finetune_gateway.wire.openapi.document import build_document
from finetune_web.answers import json_response


async def get(_: web.Request) -> web.Response:
    return json_response(build_document())


ROUTES: list[web.RouteDef] = [web.get("/v1/openapi.json", get, allow_head=False)]
