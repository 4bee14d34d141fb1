"""POST /v1/completions and /v1/chat/completions: from a request to the work in a model's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

from aiohttp import web

from finetune_api.text.sanitizing import sanitize
from finetune_api.wire import JsonObject
from finetune_serving import metrics
from finetune_serving.models.generating import Answer, Listener, generate
from finetune_serving.models.loaded import LoadedModel
from finetune_serving.models.pool import Place
from finetune_serving.problems import unknown_model
from finetune_serving.routes.context import Services, read_body, services
from finetune_serving.routes.streaming import Begun, Events, stream_parts
from finetune_serving.wire.envelopes import Envelope
from finetune_serving.wire.requests import CompletionRequest, Endpoint, parse_request
from finetune_web.answers import json_response


def build_routes() -> list[web.RouteDef]:
    return [web.post(f"/v1/{endpoint}", partial(_complete, endpoint)) for endpoint in Endpoint]


async def _complete(endpoint: Endpoint, request: web.Request) -> web.StreamResponse:
    parts = services(request)
    completion = parse_request(await read_body(request), endpoint)
    address = parts.source.find(completion.model, request.headers)
    if address is None:
        raise unknown_model(sanitize(completion.model))
    with parts.pool.admitted(address) as place:
        if completion.is_streamed:
            return await _stream(request, completion, place)
        work = parts.activity.start(
            _generate(parts, place, completion, parts.settings.hold_seconds)
        )
        answer = await parts.activity.result(work)
        return json_response(Envelope(completion).answer(answer.choices, answer.usage))


async def _stream(
    request: web.Request, completion: CompletionRequest, place: Place[LoadedModel]
) -> web.StreamResponse:
    parts, envelope = services(request), Envelope(completion)
    events = Events()
    hold_seconds = parts.settings.stream_hold_seconds
    work = parts.activity.start(
        _generate(
            parts,
            place,
            completion,
            hold_seconds,
            begun=partial(events.put, Begun()),
            part=lambda choice: events.put(envelope.part(choice)),
        )
    )
    return await stream_parts(
        request,
        events,
        work,
        is_loading=lambda: not place.is_ready,
        last_part=lambda answer: (
            envelope.last_part(answer.usage) if completion.wants_usage else None
        ),
    )


async def _generate(
    parts: Services,
    place: Place[LoadedModel],
    completion: CompletionRequest,
    hold_seconds: float,
    *,
    begun: Callable[[], None] = lambda: None,
    part: Callable[[JsonObject], None] = lambda choice: None,
) -> Answer:
    """Wait for the model, and generate. A cancellation ends it before the next token."""
    is_gone = threading.Event()
    loop = asyncio.get_running_loop()

    def post(call: Callable[[], None]) -> None:
        if not is_gone.is_set():
            loop.call_soon_threadsafe(call)

    listener = Listener(
        begun=lambda: post(begun),
        part=lambda choice: post(lambda: part(choice)),
        is_gone=is_gone.is_set,
    )
    try:
        await place.wait(hold_seconds)
        answer = await parts.pool.run(place, lambda loaded: generate(loaded, completion, listener))
    finally:
        is_gone.set()
    metrics.TOKENS.labels("prompt").inc(answer.usage.prompt)
    metrics.TOKENS.labels("completion").inc(answer.usage.completion)
    return answer
