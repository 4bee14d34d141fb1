"""One request to a server, and what its failure means."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver

from finetune_api.wire import JsonObject, parse_json
from finetune_gateway.backends.connections import (
    CheckedResolver,
    ForbiddenAddressError,
    check_literal,
    open_session,
)
from finetune_gateway.backends.target import Target
from finetune_gateway.wire.completions.answers import (
    NOT_NOW,
    BackendLoads,
    broken,
    is_error,
    not_served,
    read_refusal,
    refusal_of,
    refused,
)
from finetune_web.problems import Problem, unavailable

ANSWER_BYTES = 32 * 2**20  # 16 choices of 4,096 tokens with five log probabilities have 16 MB
ERROR_BYTES = 2**16
ERROR_SECONDS = 10.0
STREAM = "text/event-stream"


class NotReadyError(Exception):
    """The server refuses connections, or loads the model. Repeat the request later."""


class UnknownHostError(NotReadyError):
    """The name of the server has no address: no Service, or a headless one without ready pods."""


class LostError(Exception):
    """The connection ended before an answer began. Another connection may have more luck."""


class Upstreams:
    """The sessions: one for servers that Models name, and one for those of the administrator."""

    def __init__(self, resolver: AbstractResolver | None, api_server: str) -> None:
        """resolver: None: that of the operating system."""
        self._resolver = resolver
        self._api_server = api_server
        # By whether an administrator has named the server
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        """Close the connections."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _session(self, *, is_trusted: bool) -> aiohttp.ClientSession:
        """The session, which belongs to the running event loop."""
        if is_trusted not in self._sessions:
            resolver = self._resolver or aiohttp.ThreadedResolver()
            self._sessions[is_trusted] = open_session(
                CheckedResolver(resolver, self._api_server, is_trusted=is_trusted)
            )
        return self._sessions[is_trusted]

    async def post(
        self, target: Target, path: str, body: JsonObject, request_id: str
    ) -> aiohttp.ClientResponse:
        """The answer with status 200, not read yet. Close it.

        Raises Problem, NotReadyError, and LostError.
        """
        try:
            response = await self._send(target, path, body, request_id)
        except ForbiddenAddressError as error:
            raise _forbidden(target, error) from error
        except aiohttp.ClientConnectorDNSError as error:
            raise UnknownHostError(f"{target.shown} has no address") from error
        except aiohttp.ClientSSLError as error:
            raise not_served(
                f"{target.shown} has no valid certificate. Correct the certificate, or the URL."
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotReadyError(f"{target.shown} accepts no connection") from error
        except TimeoutError as error:
            raise _silent(target) from error
        except aiohttp.ClientConnectionError as error:
            raise LostError(f"{target.shown} closed the connection") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise broken(f"{target.shown} sent an answer that is not valid HTTP.") from error
        if response.status == 200 and _is_plain(response):
            return response
        try:
            raise await _refused(target, response)
        except BackendLoads as error:
            raise NotReadyError(str(error) or f"{target.shown} is not ready") from error
        finally:
            response.close()

    async def _send(
        self, target: Target, path: str, body: JsonObject, request_id: str
    ) -> aiohttp.ClientResponse:
        headers = {
            "Content-Type": "application/json",
            "Accept": STREAM if body.get("stream") else "application/json",
            "X-Request-Id": request_id,
            **dict(target.headers),
            **_authorization(target),
        }
        check_literal(target.url, is_trusted=target.is_trusted)
        return await self._session(is_trusted=target.is_trusted).post(
            f"{target.url}/{path}", data=orjson.dumps(body), headers=headers, allow_redirects=False
        )


def _authorization(target: Target) -> Mapping[str, str]:
    if target.key_file is None:
        return {}
    try:
        key = _read_key(target.key_file)
    except (OSError, ValueError) as error:
        raise not_served(
            f"The key of {target.shown[:1].lower()}{target.shown[1:]} cannot be read. Mount a "
            "Secret with the key at the path in keyFile, or in secretFile of the server."
        ) from error
    return {"Authorization": f"Bearer {key}"}


def _read_key(path: Path) -> str:
    """The key, which is read for each request: a mounted Secret changes without a restart."""
    with path.open(encoding="ascii") as file:
        key = file.read(4096).strip()
    if not key or not key.isprintable():
        raise ValueError("the file has no key")
    return key


def _is_plain(response: aiohttp.ClientResponse) -> bool:
    """Whether the answer is not compressed, as requested."""
    return response.headers.get("Content-Encoding", "identity") == "identity"


async def _refused(target: Target, response: aiohttp.ClientResponse) -> Problem:
    """The problem of another answer than 200. Raises BackendLoads."""
    if response.status == 200:
        return broken(f"{target.shown} compresses its answer, which the gateway did not request.")
    if 300 <= response.status < 400:
        return not_served(
            f"{target.shown} redirects to another URL, which the gateway does not follow. Set the "
            "URL that answers."
        )
    if not _is_plain(response):
        return refused(response.status, read_refusal(b""), target.shown)
    try:
        async with asyncio.timeout(ERROR_SECONDS):
            body = await _read(response, ERROR_BYTES)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        body = b""
    retry_after = response.headers.get("Retry-After")
    return refused(response.status, read_refusal(body), target.shown, retry_after)


async def read_answer(target: Target, response: aiohttp.ClientResponse) -> JsonObject:
    """The answer of a request that is not streamed. Raises Problem."""
    try:
        body = await _read(response, ANSWER_BYTES)
        answer = _parse(body)
    except TimeoutError as error:
        raise _silent(target) from error
    except aiohttp.ClientError as error:
        raise unavailable(f"{target.shown} closed the connection within its answer.") from error
    except ValueError as error:
        raise broken(f"{target.shown} sent an answer that cannot be used: {error}.") from error
    if is_error(answer):
        raise error_within(target, answer)
    return answer


def error_within(target: Target, answer: JsonObject) -> Problem:
    """The problem of an error that comes with status 200, also within a stream."""
    found = answer.get("error", answer)
    code = found.get("code") if isinstance(found, dict) else None
    if isinstance(code, int) and 400 <= code < 600:
        status = code
    else:
        status = 503 if code in NOT_NOW else 500
    try:
        return refused(status, refusal_of(answer), target.shown)
    except BackendLoads as error:
        return unavailable(str(error) or f"{target.shown} is not ready.")


def _parse(body: bytes) -> JsonObject:
    try:
        answer = parse_part(body)
    except ValueError as error:
        raise ValueError("it is not valid JSON") from error
    if not isinstance(answer, dict):
        raise ValueError("it is not a JSON object")
    return answer


def parse_part(body: bytes) -> object:
    """JSON of a server. Some write NaN for a log probability, which orjson refuses."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return parse_json(body)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The whole body. Raises ValueError for a larger one."""
    body = bytearray()
    async for block in response.content.iter_any():
        body += block
        if len(body) > most:
            raise ValueError(f"it has more than {most:,} bytes")
    return bytes(body)


def _silent(target: Target) -> Problem:
    return unavailable(f"{target.shown} sends nothing. Its log may have the reason.")


def _forbidden(target: Target, error: ForbiddenAddressError) -> Problem:
    return not_served(
        f"{target.shown} has {error.kind}, to which the gateway does not connect. Use a Service "
        "with a selector, whose pods answer."
    )
