"""Requests that wait for a server: it loads a model, or its first pod starts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp.abc import AbstractResolver

from finetune_gateway.backends.target import Target
from finetune_gateway.backends.upstream import (
    LostError,
    NotReadyError,
    UnknownHostError,
    Upstreams,
)
from finetune_gateway.settings import Settings
from finetune_gateway.wire.completions.answers import loading, not_served
from finetune_gateway.wire.completions.requests import CompletionRequest
from finetune_web.problems import Kind, Problem, unavailable

FIRST_PAUSE = 0.25  # seconds between the first two attempts; each further pause is twice as long
LONGEST_PAUSE = 2.0
STREAM_HOLD_SECONDS = 600.0  # a stream shows life, so that no proxy ends it
END_SECONDS = 5.0  # of shutdown_seconds, for the message at the end of a stream
MOST_REQUESTS = 1000  # at once that are not streamed, in this process
MOST_PLACEMENTS = 10_000


class Backends:
    """The servers, as the endpoints see them. Close it."""

    def __init__(
        self,
        settings: Settings,
        *,
        api_server: str = "",
        resolver: AbstractResolver | None = None,
        stream_hold_seconds: float = STREAM_HOLD_SECONDS,
        drain_seconds: float | None = None,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        """api_server: its host, to which no Service may lead.

        drain_seconds: for the streams that are open when the gateway ends.
        """
        self.placements = Placements(settings.review_seconds)
        self._hold_seconds = settings.hold_seconds
        self._stream_hold_seconds = stream_hold_seconds
        if drain_seconds is None:
            drain_seconds = max(0.0, settings.shutdown_seconds - END_SECONDS)
        self.drain_seconds = drain_seconds
        self._most_requests = most_requests
        self._upstreams = Upstreams(resolver, api_server)
        self._requests = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """One request that is not streamed, until the end of the block. Raises Problem."""
        if self._requests >= self._most_requests:
            raise Problem(
                429,
                f"The gateway has {self._most_requests:,} completions at once. Try again.",
                kind=Kind.BUSY,
                code="rate_limit_exceeded",
                retry_after=1,
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def open(
        self,
        target: Target,
        request: CompletionRequest,
        request_id: str,
        closing: asyncio.Event,
        on_wait: Callable[[], object] = lambda: None,
    ) -> aiohttp.ClientResponse:
        """The answer of the server, as soon as it is ready; not read yet. Close it.

        Raises Problem. closing: set when the gateway ends. on_wait: called when the server is not
        ready.
        """
        body = request.forwarded(target.model, target.supports)
        clock = asyncio.get_running_loop().time
        seconds = self._stream_hold_seconds if request.is_streamed else self._hold_seconds
        start, pause, losses = clock(), FIRST_PAUSE, 0
        while True:
            attempt = clock()
            try:
                return await self._upstreams.post(target, request.endpoint, body, request_id)
            except LostError as error:
                losses += 1
                if losses > 1:
                    raise unavailable(f"{error} before its answer. Repeat the request.") from error
            except NotReadyError as error:
                on_wait()
                if closing.is_set():
                    raise restarting() from error
                now = clock()
                remaining = start + seconds - now
                # A server that holds requests itself would hold the next one for as long.
                if remaining <= 0 or remaining < now - attempt:
                    raise _too_late(error, request.model, now - start) from error
                await _pause(min(pause, remaining), closing)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def close(self) -> None:
        await self._upstreams.close()


class Placements:
    """Who may use which server for a model: remembered for a few seconds, like a rights check."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: OrderedDict[tuple[str, str], tuple[float, Target]] = OrderedDict()

    def find(self, caller: str, model: str) -> Target | None:
        """caller: the fingerprint of a credential."""
        end, target = self._known.get((caller, model), (0.0, None))
        return target if end > asyncio.get_running_loop().time() else None

    def add(self, caller: str, model: str, target: Target) -> None:
        self._known.pop((caller, model), None)
        self._known[caller, model] = (asyncio.get_running_loop().time() + self._seconds, target)
        if len(self._known) > MOST_PLACEMENTS:
            self._known.popitem(last=False)


async def _pause(seconds: float, closing: asyncio.Event) -> None:
    """Sleep, but no longer than the gateway lives."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await closing.wait()


def restarting() -> Problem:
    return unavailable("The gateway restarts. Repeat the request.", 1)


def _too_late(error: NotReadyError, model: str, seconds: float) -> Problem:
    if isinstance(error, UnknownHostError):
        return not_served(
            f"{error}: there is no such Service, or it has no ready pods. Create it, or correct "
            "spec.serving of the Model, or the backend's URL."
        )
    return loading(model, seconds, str(error))
