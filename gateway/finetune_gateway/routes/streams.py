"""The events of a FineTune as a stream, which lasts until the FineTune ends.

The stream begins with the events that the status has, and continues with news from a watch as the
caller. The number of an event is its id in the stream, so that a client that connects again with
`Last-Event-ID` receives each event once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import UTC, datetime

from aiohttp import web

from finetune_api.finetune import FineTune
from finetune_api.names import State
from finetune_api.wire import JsonObject
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.problems import internal
from finetune_gateway.routes.context import (
    REQUEST_ID,
    authenticate,
    caller,
    open_streams,
    services,
)
from finetune_gateway.routes.lookup import asking, find_finetune
from finetune_gateway.routes.open_streams import closing
from finetune_gateway.wire.events import message_object, number_messages, status_object
from finetune_gateway.wire.finetunes import is_ended, parse_finetune
from finetune_gateway.wire.ids import Form, shown_id
from finetune_web.problems import Problem, invalid, missing
from finetune_web.server_sent_events import ServerSentEvents

POLL_SECONDS = 1.0  # between checks of the connection, for whose end aiohttp has no event
MOST_DIGITS = 18  # of Last-Event-ID

logger = logging.getLogger(__name__)


def wants_stream(request: web.Request) -> bool:
    """Whether the request has `?stream=true`. Raises Problem for a value that is no boolean."""
    value = request.query.get("stream", "false").lower()
    if value not in {"true", "false"}:
        raise invalid("stream must be true or false.", "stream")
    return value == "true" and request.method == "GET"


async def stream_events(request: web.Request, job_id: str, form: Form) -> web.StreamResponse:
    """Answer with the stream. An error before its start is an ordinary Problem."""
    after = _last_event_id(request)
    finetune = await find_finetune(request, job_id)
    with open_streams(request).opened():
        events = await ServerSentEvents.open(request)
        with suppress(ConnectionError):  # the client is gone
            try:
                await _send_all(request, finetune, events, _News(finetune, form, after))
            except Problem as problem:
                await events.fail(problem)
            except ConnectionError:
                raise
            except Exception:
                request_id = request[REQUEST_ID]
                logger.exception("request %s: the stream of %s", request_id, job_id[:100])
                await events.fail(internal(request_id))
    return events.response


class _News:
    """What the client does not have yet. Each event is sent once."""

    def __init__(self, finetune: FineTune, form: Form, after: int) -> None:
        """after: the number of the last event that the client has."""
        self.name, self.uid = finetune.metadata.name, finetune.metadata.uid
        self.shown_id = shown_id(self.name, form)
        self._form = form
        numbers = [message.number for message in number_messages(finetune.status.events)]
        # A larger number is from a former FineTune of this name.
        self._after = after if after <= max(numbers, default=0) else 0
        self._message: str | None = None  # of the status, which was sent

    async def send(self, finetune: FineTune, events: ServerSentEvents) -> bool:
        """Send what is new. Returns whether the FineTune has ended, and the stream with it."""
        latest = None
        for message in number_messages(finetune.status.events):
            latest = message.entry.message
            if message.number > self._after:
                await events.send(message_object(finetune, message, self._form), message.number)
                self._after = message.number
        status = finetune.status
        if status.state == State.PENDING and status.message not in {None, self._message, latest}:
            self._message = status.message
            await events.send(status_object(finetune, datetime.now(UTC), self._form))
        if is_ended(finetune):
            await events.done()
            return True
        return False


async def _send_all(
    request: web.Request, finetune: FineTune, events: ServerSentEvents, news: _News
) -> None:
    """Send the events until the FineTune ends. Raises Problem if the stream must end before."""
    if await news.send(finetune, events):
        return
    with asking(request, "watch", "finetunes", news.shown_id):
        follower = services(request).cluster.follow(caller(request), "finetunes", news.name)
        try:
            async with aclosing(_changes(request, events, follower)) as changes:
                async for found in changes:
                    if await news.send(_parse(found, news), events):
                        return
        except KubeError as error:
            if error.status == web.HTTPNotFound.status_code:  # deleted before the watch began
                raise _deleted(news) from error
            raise


def _parse(found: JsonObject | None, news: _News) -> FineTune:
    """The FineTune of the stream. Raises Problem if it was deleted, also if it was replaced."""
    finetune = parse_finetune(found) if found is not None else None
    if finetune is None or finetune.metadata.uid != news.uid:
        raise _deleted(news)
    return finetune


def _deleted(news: _News) -> Problem:
    return missing(f"The fine-tune {news.shown_id} was deleted.", code="fine_tune_deleted")


async def _changes(
    request: web.Request,
    events: ServerSentEvents,
    follower: AsyncGenerator[JsonObject | None],
) -> AsyncGenerator[JsonObject | None]:
    """The changes, with comments between them. It ends when the client goes away.

    Raises Problem when the gateway closes, and when the caller's key is no longer valid.
    """
    clock = asyncio.get_running_loop().time
    seconds = services(request).settings.keep_alive_seconds
    next_comment = clock() + seconds
    closed = asyncio.create_task(open_streams(request).closing.wait())
    async with aclosing(follower):
        change = asyncio.create_task(_advance(follower))
        try:
            while not events.is_lost:
                wait = max(0, min(POLL_SECONDS, next_comment - clock()))
                both = (change, closed)
                await asyncio.wait(both, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                if closed.done():
                    raise closing()
                if change.done():
                    yield change.result()
                    change = asyncio.create_task(_advance(follower))
                if clock() >= next_comment:
                    authenticate(request)
                    await events.keep_alive()
                    next_comment = clock() + seconds
        finally:
            change.cancel()
            closed.cancel()
            await asyncio.gather(change, closed, return_exceptions=True)


async def _advance(follower: AsyncGenerator[JsonObject | None]) -> JsonObject | None:
    return await anext(follower, None)


def _last_event_id(request: web.Request) -> int:
    """The number of the last event that the client has; 0 if it has none. Raises Problem."""
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
        raise invalid(
            "The header Last-Event-ID is not the id of an event of this stream. Leave it out to "
            "receive all events.",
            code="invalid_last_event_id",
        )
    return int(text)
