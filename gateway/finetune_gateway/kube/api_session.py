"""Requests to the API server, each with the credential of one sender and of no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from finetune_api.wire import JsonObject
from finetune_gateway.kube.answers import parse_object, read_error, read_object
from finetune_gateway.kube.caller import Caller, Itself
from finetune_gateway.kube.server import Server
from finetune_gateway.kube_errors import KubeError

OBJECT_BYTES = 8 * 2**20  # etcd stores at most 1.5 MiB; JSON with managed fields has more
BODY_BYTES = 2 * 2**20  # of a request
CONNECTIONS = 2048  # each follower has one
IMPERSONATE = "Impersonate-User"
TOO_MANY = 429  # of priority and fairness, and of a kind whose cache is not filled yet
BUSY_SECONDS = 1

logger = logging.getLogger(__name__)


class ApiSession:
    """One session for all callers. Use it as an asynchronous context manager.

    Nothing that belongs to a caller stays in it: no cookie, no header, and no client certificate.
    """

    def __init__(self, server: Server, timeout_seconds: float) -> None:
        """timeout_seconds: of one request, and of the start of a stream."""
        self._server = server
        self._seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._server.tls or True, limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "finetune-gateway", "Accept-Encoding": "identity"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self,
        caller: Caller | Itself,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: JsonObject | None = None,
        headers: dict[str, str] | None = None,
        most_bytes: int = OBJECT_BYTES,
    ) -> JsonObject:
        """The answer to one request. Raises KubeError.

        headers: in addition to the credential. A body is JSON unless they say otherwise.

        An API server that has too many requests is asked again, as long as the time of one request
        has not passed: it has not carried the request out, and old clients end at an error.
        """
        sent, data = dict(headers or {}), None
        if body is not None:
            data = _to_json(body)
            sent.setdefault("Content-Type", "application/json")
        clock = asyncio.get_running_loop().time
        end = clock() + self._seconds
        while True:
            timeout = aiohttp.ClientTimeout(total=self._seconds)
            try:
                async with self._open(
                    caller, method, path, sent, params=params, data=data, timeout=timeout
                ) as response:
                    return await read_object(response, most_bytes)
            except KubeError as error:
                wait = error.retry_after or BUSY_SECONDS
                if error.status != TOO_MANY or clock() + wait > end:
                    raise
            await asyncio.sleep(wait)

    async def stream(
        self, caller: Caller, path: str, params: dict[str, str], silent_seconds: float
    ) -> AsyncGenerator[JsonObject]:
        """The JSON objects of an answer that has one in each line. Raises KubeError.

        silent_seconds: without a byte, after which the connection is lost.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_read=silent_seconds)
        async with self._open(caller, "GET", path, {}, params=params, timeout=timeout) as response:
            async for line in _lines(response):
                yield parse_object(line)

    async def answers(self, path: str) -> bool:
        """Whether the API server answers anything but an error of its own."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        try:
            async with self._session.get(
                self._server.url + path, timeout=timeout, allow_redirects=False
            ) as response:
                return response.status < 500
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    @asynccontextmanager
    async def _open(
        self,
        caller: Caller | Itself,
        method: str,
        path: str,
        headers: dict[str, str],
        **request: Any,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer of 2xx to one request. Every other answer, and none, raises KubeError."""
        assert self._session is not None
        credential = self._credential(caller)
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._session.request(
                    method,
                    self._server.url + path,
                    headers={**headers, **credential},
                    allow_redirects=False,
                    **request,
                )
            async with response:
                if response.status >= 300:
                    raise _blame(await read_error(response), caller)
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = type(error).__name__
            logger.warning("%s %s: no answer of the API server (%s)", method, path, cause)
            raise KubeError(0, f"The API server does not answer ({cause}).") from error

    def _credential(self, caller: Caller | Itself) -> dict[str, str]:
        """The headers of a caller: its own token only, or the gateway's and an impersonation."""
        if isinstance(caller, Itself):
            return self._own_credential("which it needs to wake models")
        user = caller.headers.get(IMPERSONATE)
        if user is None:
            return {"Authorization": caller.headers["Authorization"]}
        return {**self._own_credential("which API keys need"), IMPERSONATE: user}

    def _own_credential(self, purpose: str) -> dict[str, str]:
        if self._server.token is None:
            raise KubeError(0, f"The gateway has no token of its own, {purpose}.")
        return {"Authorization": f"Bearer {self._server.token.read()}"}


def _blame(error: KubeError, caller: Caller | Itself) -> KubeError:
    """The error of a request. A refused token of the gateway is no error of the caller."""
    if error.status == 401 and (isinstance(caller, Itself) or IMPERSONATE in caller.headers):
        logger.error("the API server does not accept the gateway's own token")
        return KubeError(0, "The API server does not accept the gateway's own token.")
    return error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a stream. A line can exceed the limit of aiohttp's readline."""
    rest = bytearray()
    async for block in response.content.iter_any():
        rest += block
        if b"\n" in block:
            *lines, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in filter(None, lines):
                yield line
        if len(rest) > OBJECT_BYTES:
            raise KubeError(0, f"An event of the API server has more than {OBJECT_BYTES:,} bytes.")


def _to_json(body: JsonObject) -> bytes:
    data = orjson.dumps(body)
    if len(data) > BODY_BYTES:
        message = f"The object has more than {BODY_BYTES:,} bytes."
        raise KubeError(413, message, reason="RequestEntityTooLarge")
    return data
