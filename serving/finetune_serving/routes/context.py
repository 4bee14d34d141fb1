"""What the endpoints share, and the JSON of requests and answers."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from finetune_api.wire import JsonObject, parse_json
from finetune_serving.models.addresses import ModelSource
from finetune_serving.models.loaded import LoadedModel
from finetune_serving.models.pool import ModelPool
from finetune_serving.routes.activity import Activity
from finetune_serving.settings import Settings
from finetune_web.problems import invalid

BODY_BYTES = 16 * 2**20
REQUEST_ID = web.RequestKey("request_id", str)


@dataclass(frozen=True)
class Services:
    """The parts of the server."""

    settings: Settings
    source: ModelSource
    pool: ModelPool[LoadedModel]
    activity: Activity


SERVICES = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


async def read_body(request: web.Request) -> JsonObject:
    """The JSON object of a request. Raises Problem."""
    try:
        value = parse_json(await request.read())
    except ValueError as error:
        raise invalid("The body is not valid JSON in UTF-8.") from error
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    return value
