"""Completions as server-sent events.

A stream begins with the first token, so that an invalid request is an error with its own status.
While the model loads or other requests are before this one, comments show that the server is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from finetune_api.wire import JsonObject
from finetune_serving.models.generating import Answer
from finetune_serving.problems import internal
from finetune_serving.routes.context import REQUEST_ID, services
from finetune_web.problems import Problem
from finetune_web.server_sent_events import ServerSentEvents

logger = logging.getLogger(__name__)

LOADING, WAITING = "loading", "waiting"


class Begun:
    """The request is valid, and its turn has come."""


class End:
    """The work has ended."""


class Events:
    """The parts that the thread of the model has made, and the end of its work."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[JsonObject | Begun | End] = asyncio.Queue()

    def put(self, event: JsonObject | Begun | End) -> None:
        self._queue.put_nowait(event)

    async def get(self, seconds: float) -> JsonObject | Begun | End | None:
        """The next event; None after some time without one."""
        try:
            return await asyncio.wait_for(self._queue.get(), seconds)
        except TimeoutError:
            return None


async def stream_parts(
    request: web.Request,
    events: Events,
    work: asyncio.Task[Answer],
    *,
    is_loading: Callable[[], bool],
    last_part: Callable[[Answer], JsonObject | None],
) -> web.StreamResponse:
    """The stream of the events. Raises Problem only before it begins."""
    parts = services(request)
    work.add_done_callback(lambda _: events.put(End()))
    stream: ServerSentEvents | None = None
    try:
        if is_loading():
            stream = await ServerSentEvents.open(request)
            await stream.comment(LOADING)
        while not isinstance(event := await events.get(parts.settings.keep_alive_seconds), End):
            if stream is None:
                stream = await ServerSentEvents.open(request)
            if event is None:
                await stream.comment(LOADING if is_loading() else WAITING)
            elif not isinstance(event, Begun):
                await stream.send(event)
        answer = await parts.activity.result(work)
        stream = stream or await ServerSentEvents.open(request)
        if (part := last_part(answer)) is not None:
            await stream.send(part)
        await stream.done()
    except ConnectionError:  # of the client
        raise
    except Exception as error:
        if stream is None:
            raise
        await stream.fail(_problem(error, request))
    finally:
        work.cancel()
    return stream.response


def _problem(error: Exception, request: web.Request) -> Problem:
    if isinstance(error, Problem):
        return error
    request_id = request[REQUEST_ID]
    logger.error("request %s: the stream fails", request_id, exc_info=error)
    return internal(request_id)
