"""POST /v1/completions, /v1/engines/{model}/completions, and /v1/chat/completions."""

from __future__ import annotations

from functools import partial

import orjson
from aiohttp import web

from finetune_gateway.backends.target import Target
from finetune_gateway.backends.upstream import read_answer
from finetune_gateway.routes.completions.patience import while_heard
from finetune_gateway.routes.completions.served_models import count_tokens, find_target, read_target
from finetune_gateway.routes.completions.streaming import stream_completion
from finetune_gateway.routes.context import REQUEST_ID, caller, open_streams, read_object, services
from finetune_gateway.wire.completions.answers import broken, renamed, usage_of
from finetune_gateway.wire.completions.requests import (
    CompletionRequest,
    Endpoint,
    parse_completion,
)
from finetune_web.answers import json_response


async def complete(request: web.Request) -> web.StreamResponse:
    return await _answer(request, Endpoint.COMPLETIONS)


async def complete_by_engine(request: web.Request) -> web.StreamResponse:
    return await _answer(request, Endpoint.COMPLETIONS, request.match_info["model"])


async def chat(request: web.Request) -> web.StreamResponse:
    return await _answer(request, Endpoint.CHAT)


ROUTES: list[web.RouteDef] = [
    web.post("/v1/completions", complete),
    web.post("/v1/engines/{model}/completions", complete_by_engine),
    web.post("/v1/chat/completions", chat),
]


async def _answer(
    request: web.Request, endpoint: Endpoint, engine: str | None = None
) -> web.StreamResponse:
    completion = parse_completion(await read_object(request), endpoint, engine)
    target = await find_target(request, completion.model)
    backends = services(request).backends
    if completion.is_streamed:
        with open_streams(request).opened(), backends.in_use(target):
            return await stream_completion(request, completion, target)
    with backends.admitted(), backends.in_use(target):
        return await while_heard(request, _whole(request, completion, target))


async def _whole(
    request: web.Request, completion: CompletionRequest, target: Target
) -> web.Response:
    """The answer in one piece."""
    response = await services(request).backends.open(
        target,
        completion,
        request[REQUEST_ID],
        closing=open_streams(request).closing,
        reread=partial(read_target, request, completion.model),
    )
    try:
        answer = await read_answer(target, response)
    finally:
        response.close()
    count_tokens(usage_of(answer), completion.model, caller(request))
    try:
        return json_response(renamed(answer, completion.model))
    except orjson.JSONEncodeError as error:  # it can be read with more levels than written
        raise broken(f"{target.shown} sent an answer that is nested too deeply.") from error
