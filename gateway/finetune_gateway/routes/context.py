"""What the endpoints work with, and how they find it in a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from finetune_api.wire import JsonObject, parse_json
from finetune_gateway.backends.holding import Backends
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.kube.caller import Caller
from finetune_gateway.kube.cluster import Cluster
from finetune_gateway.routes.open_streams import OpenStreams
from finetune_gateway.settings import Settings
from finetune_web.problems import Problem, invalid

BODY_BYTES, BODY_SECONDS = 2**20, 60  # of a JSON body, and for it to arrive

# Returns the caller of an Authorization header, or raises Problem.
Authenticate = Callable[[str], Caller]


@dataclass(frozen=True)
class Services:
    """The parts of the process, which all requests share."""

    settings: Settings
    cluster: Cluster
    files: BucketFiles
    backends: Backends


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
AUTHENTICATE: web.AppKey[Authenticate] = web.AppKey("authenticate")
OPEN_STREAMS: web.AppKey[OpenStreams] = web.AppKey("open_streams", OpenStreams)
AUTHORIZATION = "Authorization"
CALLER: web.RequestKey[Caller] = web.RequestKey("caller", Caller)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


def caller(request: web.Request) -> Caller:
    """The authenticated sender; `routes.app` has set it."""
    return request[CALLER]


def authenticate(request: web.Request) -> Caller:
    """Find the caller again, in a request that lasts. Raises Problem once a key is revoked."""
    return request.app[AUTHENTICATE](request.headers.get(AUTHORIZATION, ""))


def open_streams(request: web.Request) -> OpenStreams:
    return request.app[OPEN_STREAMS]


async def read_object(request: web.Request) -> JsonObject:
    """The body, which must be a JSON object. Raises Problem."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            data = await _read_body(request)
    except TimeoutError as error:
        raise Problem(
            web.HTTPRequestTimeout.status_code,
            f"The body has not arrived within {BODY_SECONDS} seconds.",
            code="request_timeout",
        ) from error
    try:
        found = parse_json(data)
    except ValueError as error:
        raise invalid(
            "The body is not valid JSON. Send a JSON object, with Content-Type: application/json.",
            code="invalid_json",
        ) from error
    if not isinstance(found, dict):
        raise invalid("The body is valid JSON, but not a JSON object.", code="invalid_json")
    return found


async def _read_body(request: web.Request) -> bytes:
    if (request.content_length or 0) > BODY_BYTES:
        raise invalid(f"The body has more than {BODY_BYTES:,} bytes.", code="body_too_large")
    data = bytearray()
    async for block in request.content.iter_chunked(2**16):
        data += block
        if len(data) > BODY_BYTES:
            raise invalid(f"The body has more than {BODY_BYTES:,} bytes.", code="body_too_large")
    return bytes(data)
