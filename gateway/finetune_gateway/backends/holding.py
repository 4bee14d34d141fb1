"""Requests that wait for a server: it loads a model, or its first pod starts."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import aiohttp
from aiohttp.abc import AbstractResolver

from finetune_gateway.backends.target import Target
from finetune_gateway.backends.upstream import (
    LostError,
    NotReadyError,
    UnknownHostError,
    Upstreams,
)
from finetune_gateway.backends.waking import Waking
from finetune_gateway.settings import Settings
from finetune_gateway.wire.completions.answers import AWAY, loading, not_served, not_started
from finetune_gateway.wire.completions.requests import CompletionRequest
from finetune_web.problems import Kind, Problem, unavailable

FIRST_PAUSE = 0.25  # seconds between the first two attempts; each further pause is twice as long
LONGEST_PAUSE = 2.0
STREAM_HOLD_SECONDS = 600.0  # a stream shows life, so that no proxy ends it
FAILED_HOLD_SECONDS = 5.0  # for a model whose pods do not start: the cause is known
REVIEW_SECONDS = 30.0  # of a model that loads: it may fail while a stream waits
READ_SECONDS = 3.0  # to read the Model again, within the 60 s of proxies
END_SECONDS = 5.0  # of shutdown_seconds, for the message at the end of a stream
MOST_REQUESTS = 1000  # at once that are not streamed, in this process
MOST_PLACEMENTS = 10_000

Reread = Callable[[], Awaitable[Target]]  # the target as it is now, as the caller; raises Problem


class Backends:
    """The servers, as the endpoints see them. Close it."""

    def __init__(
        self,
        settings: Settings,
        *,
        api_server: str = "",
        resolver: AbstractResolver | None = None,
        waking: Waking | None = None,
        stream_hold_seconds: float = STREAM_HOLD_SECONDS,
        drain_seconds: float | None = None,
        most_requests: int = MOST_REQUESTS,
    ) -> None:
        """api_server: its host, to which no Service may lead.

        waking: of the models that the operator serves. None: there are no such models.
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
        self._waking = waking or Waking()
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

    def in_use(self, target: Target) -> AbstractContextManager[None]:
        """A request to this server, from before `open` to the end of its answer."""
        if target.served is None:
            return nullcontext()
        return self._waking.in_use(target.served.lease)

    async def open(
        self,
        target: Target,
        request: CompletionRequest,
        request_id: str,
        *,
        closing: asyncio.Event,
        reread: Reread,
        on_wait: Callable[[], object] = lambda: None,
    ) -> aiohttp.ClientResponse:
        """The answer of the server, as soon as it is ready; not read yet. Close it.

        Raises Problem. Call it within `in_use`. closing: set when the gateway ends. on_wait: called
        when the server is not ready.
        """
        body = request.forwarded(target.model, target.supports)
        self._want(target)
        longest = self._stream_hold_seconds if request.is_streamed else self._hold_seconds
        hold, losses = _Hold(target, longest), 0
        while True:
            hold.begin_attempt()
            try:
                return await self._upstreams.post(target, request.endpoint, body, request_id)
            except LostError as error:
                losses += 1
                if losses > 1:
                    raise unavailable(f"{error} before its answer. Repeat the request.") from error
            except NotReadyError as error:
                on_wait()
                self._want(target, is_ready=False)
                if closing.is_set():
                    raise restarting() from error
                if not hold.is_over:
                    await hold.pause(closing)
                    continue
                current = await _current(target, reread)
                if not hold.extend(target, current):
                    raise self._too_late(
                        error, request.model, target, current, hold.waited
                    ) from error

    async def close(self) -> None:
        await self._waking.close()
        await self._upstreams.close()

    def _want(self, target: Target, *, is_ready: bool = True) -> None:
        """Wake the model, or keep it awake, if the operator serves it."""
        if target.served is not None:
            self._waking.want(target.served.lease, is_ready=is_ready)

    def _too_late(
        self, error: NotReadyError, model: str, target: Target, current: Target, seconds: float
    ) -> Problem:
        """The answer to a request that has waited for so many seconds.

        current: the target as it is now.
        """
        if current.served is not None and current.served.has_failed:
            return not_started(model, current.served.message)
        if target.served is not None:  # its Service is perhaps not created yet
            obstacle = self._waking.obstacle(target.served.lease)
            return loading(model, seconds, f"{error}; {obstacle}" if obstacle else str(error))
        if isinstance(error, UnknownHostError):
            return not_served(
                f"{error}: there is no such Service, or it has no ready pods. Create it, or "
                "correct spec.serving of the Model, or the backend's URL."
            )
        return loading(model, seconds, str(error))


class _Hold:
    """The time for which one request waits for its server."""

    def __init__(self, target: Target, longest: float) -> None:
        """longest: seconds for a server that can become ready."""
        self._clock = asyncio.get_running_loop().time
        self._start = self._attempt = self._clock()
        self._longest = longest
        self._seconds = min(_hold_seconds(target, longest), _review_seconds(target))
        self._pause = FIRST_PAUSE

    @property
    def waited(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._start

    @property
    def is_over(self) -> bool:
        """Whether the attempt that has just failed was the last one, until `extend`."""
        return self._ends_at(self._seconds)

    def _ends_at(self, seconds: float) -> bool:
        """Whether no further attempt fits into so many seconds since the request arrived."""
        remaining = seconds - self.waited
        # A server that holds requests itself would hold the next one for as long.
        return remaining <= 0 or remaining < self._clock() - self._attempt

    def begin_attempt(self) -> None:
        self._attempt = self._clock()

    def extend(self, target: Target, current: Target) -> bool:
        """Whether the request waits longer: its model has not failed, and there is time left."""
        most = _hold_seconds(current, self._longest)
        if current.url != target.url or self._ends_at(most):
            return False
        self._seconds = min(most, self.waited + _review_seconds(current))
        return True

    async def pause(self, closing: asyncio.Event) -> None:
        """Sleep until the next attempt, but no longer than the gateway lives."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self._pause, self._seconds - self.waited)):
                await closing.wait()
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _review_seconds(target: Target) -> float:
    """Seconds until a state that the operator writes is read again."""
    return math.inf if target.served is None else REVIEW_SECONDS


def _hold_seconds(target: Target, longest: float) -> float:
    if target.served is not None and target.served.has_failed:
        return min(FAILED_HOLD_SECONDS, longest)
    return longest


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


def restarting() -> Problem:
    return unavailable("The gateway restarts. Repeat the request.", 1)


async def _current(target: Target, reread: Reread) -> Target:
    """The target as it is now; as it was if the operator has no part in it, or without an answer.

    Raises Problem, as for a Model that has been deleted in the meantime.
    """
    if target.served is None:
        return target
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await reread()
    except TimeoutError:
        return target
    except Problem as problem:
        if problem.code != AWAY:
            raise
        return target
