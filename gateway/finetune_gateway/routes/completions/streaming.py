"""Completions as server-sent events: each part is sent as soon as the server has written it.

An answer that has begun cannot become an error any more. A failure is then an error within the
stream, and `[DONE]` is sent only after a complete answer.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

import aiohttp
import orjson
from aiohttp import web

from finetune_api.wire import JsonObject
from finetune_gateway.backends.holding import restarting
from finetune_gateway.backends.target import Target
from finetune_gateway.backends.upstream import STREAM, error_within, parse_part, read_answer
from finetune_gateway.problems import internal
from finetune_gateway.routes.completions.patience import GLANCE_SECONDS, discard, has_left
from finetune_gateway.routes.completions.served_models import count_tokens, read_target
from finetune_gateway.routes.context import REQUEST_ID, caller, open_streams, services
from finetune_gateway.wire.completions.answers import (
    Usage,
    broken,
    is_error,
    is_usage_only,
    renamed,
    usage_of,
)
from finetune_gateway.wire.completions.event_parts import DONE, EventReader
from finetune_gateway.wire.completions.requests import CompletionRequest
from finetune_web.problems import Problem, unavailable
from finetune_web.server_sent_events import ServerSentEvents

logger = logging.getLogger(__name__)

KEEP_ALIVE = "keep-alive"
LOADING = "loading"


async def stream_completion(
    request: web.Request, completion: CompletionRequest, target: Target
) -> web.StreamResponse:
    """The stream. Raises Problem only before it begins."""
    client = _Client(request)
    try:
        upstream = await _open(client, completion, target)
        try:
            if upstream.content_type != STREAM:
                raise await _not_streamed(target, upstream)
            passage = _Passage(client, completion, target, upstream)
            try:
                await passage.run()
            finally:
                count_tokens(passage.usage, completion.model, caller(request))
        finally:
            upstream.close()
    except ConnectionError:  # of the client
        raise
    except Exception as error:
        if client.stream is None:
            raise
        await client.stream.fail(_problem(error, request))
    return (await client.begin()).response


class _Client:
    """The client's side of the stream."""

    def __init__(self, request: web.Request) -> None:
        self.request = request
        self.stream: ServerSentEvents | None = None
        self._keep_alive = services(request).settings.keep_alive_seconds
        self._clock = asyncio.get_running_loop().time
        self._quiet_until = self._clock() + self._keep_alive

    @property
    def glance(self) -> float:
        """Seconds until the next check."""
        return min(GLANCE_SECONDS, self._keep_alive)

    async def begin(self) -> ServerSentEvents:
        if self.stream is None:
            self.stream = await ServerSentEvents.open(self.request)
        return self.stream

    async def send(self, part: JsonObject) -> None:
        self._quiet_until = self._clock() + self._keep_alive
        await (await self.begin()).send(part)

    async def comment(self, text: str) -> None:
        self._quiet_until = self._clock() + self._keep_alive
        await (await self.begin()).comment(text)

    async def check(self, text: str) -> None:
        """Notice that the client has left, and send a comment if nothing was sent for a while."""
        if has_left(self.request):
            raise ConnectionResetError("the client has left")
        if self._clock() >= self._quiet_until:
            await self.comment(text)


async def _open(
    client: _Client, completion: CompletionRequest, target: Target
) -> aiohttp.ClientResponse:
    """The server's answer. The stream begins before it if the model loads, or after a while."""
    backends = services(client.request).backends
    loads = asyncio.Event()
    opening = asyncio.ensure_future(
        backends.open(
            target,
            completion,
            client.request[REQUEST_ID],
            closing=open_streams(client.request).closing,
            reread=partial(read_target, client.request, completion.model),
            on_wait=loads.set,
        )
    )
    first_wait = asyncio.ensure_future(loads.wait())
    try:
        while not opening.done():
            waited = {opening} if first_wait.done() else {opening, first_wait}
            await asyncio.wait(waited, timeout=client.glance, return_when="FIRST_COMPLETED")
            if opening.done():
                break
            if loads.is_set() and client.stream is None:
                await client.comment(LOADING)
            await client.check(LOADING if loads.is_set() else KEEP_ALIVE)
        return opening.result()
    except BaseException:
        await discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            opening.result().close()
        raise
    finally:
        await discard(first_wait)


class _Passage:
    """The parts of one answer on their way from the server to the client."""

    def __init__(
        self,
        client: _Client,
        completion: CompletionRequest,
        target: Target,
        upstream: aiohttp.ClientResponse,
    ) -> None:
        self._client = client
        self._completion = completion
        self._target = target
        self._upstream = upstream
        self.usage: Usage | None = None  # the latest: some servers count in each part
        self._closing = open_streams(client.request).closing
        self._drain_seconds = services(client.request).backends.drain_seconds
        self._clock = asyncio.get_running_loop().time
        self._end: float | None = None  # of this process

    async def run(self) -> None:
        """Until `[DONE]`. Raises Problem for every other end."""
        stream, reader = await self._client.begin(), EventReader()
        while True:
            self._check_end()
            try:
                async with asyncio.timeout(self._client.glance):
                    block = await self._read()
            except TimeoutError:
                await self._client.check(KEEP_ALIVE)
                continue
            if not block:
                raise unavailable(f"{self._target.shown} ended its stream too early.")
            for data in self._events(reader, block):
                if data == DONE:
                    await stream.done()
                    return
                await self._pass_on(data)

    def _check_end(self) -> None:
        """Give the stream some time when the gateway ends. Raises Problem after it."""
        if not self._closing.is_set():
            return
        if self._end is None:
            self._end = self._clock() + self._drain_seconds
        elif self._clock() >= self._end:
            raise restarting()

    async def _read(self) -> bytes:
        """The next block; empty at the end. Raises TimeoutError only if nothing has arrived yet."""
        try:
            return await self._upstream.content.readany()
        except aiohttp.SocketTimeoutError as error:
            raise unavailable(f"{self._target.shown} sends nothing.") from error
        except aiohttp.ClientError as error:
            raise unavailable(
                f"{self._target.shown} closed the connection within its stream."
            ) from error

    def _events(self, reader: EventReader, block: bytes) -> list[bytes]:
        try:
            return reader.feed(block)
        except ValueError as error:
            raise broken(f"{self._target.shown} sent a stream that is too large: {error}.") from (
                error
            )

    async def _pass_on(self, data: bytes) -> None:
        try:
            part = parse_part(data)
        except ValueError:
            part = None
        if not isinstance(part, dict):
            raise broken(f"{self._target.shown} sent a part of a stream that is no JSON object.")
        if is_error(part):
            raise error_within(self._target, part)
        model = self._completion.model
        self.usage = usage_of(part) or self.usage
        if is_usage_only(part) and not self._completion.wants_usage:
            return
        try:
            await self._client.send(renamed(part, model))
        except orjson.JSONEncodeError as error:  # it can be read with more levels than written
            raise broken(f"{self._target.shown} sent a part that is nested too deeply.") from error


async def _not_streamed(target: Target, upstream: aiohttp.ClientResponse) -> Problem:
    """A server that does not stream: it answers with an error, or ignores `stream`."""
    await read_answer(target, upstream)
    return broken(f"{target.shown} does not stream. Repeat the request without 'stream'.")


def _problem(error: Exception, request: web.Request) -> Problem:
    if isinstance(error, Problem):
        return error
    request_id = request[REQUEST_ID]
    logger.error("request %s: the stream fails", request_id, exc_info=error)
    return internal(request_id)
