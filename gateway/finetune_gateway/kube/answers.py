"""The answers of the API server, which are bounded and parsed, and its errors.

A proxy in between can answer anything. A message never has a part of a request's headers.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from finetune_api.wire import JsonObject
from finetune_gateway.kube_errors import KubeError

ERROR_BYTES = 2**16
MESSAGE_CHARACTERS, CAUSES_AT_MOST, CAUSE_CHARACTERS = 1200, 8, 1000
RETRY_AFTER_AT_MOST = 60  # seconds


async def read_object(response: aiohttp.ClientResponse, most_bytes: int) -> JsonObject:
    """The JSON object in the body. Raises KubeError (status 0) for anything else."""
    data = await _read(response, most_bytes)
    if len(data) > most_bytes:
        raise KubeError(0, f"An answer of the API server has more than {most_bytes:,} bytes.")
    return parse_object(data)


def parse_object(data: bytes) -> JsonObject:
    """A JSON object of the API server. Raises KubeError (status 0)."""
    try:
        found = orjson.loads(data)
    except ValueError as error:
        raise KubeError(0, "An answer of the API server is not valid JSON.") from error
    if not isinstance(found, dict):
        raise KubeError(0, "An answer of the API server is not a JSON object.")
    return found


async def read_error(response: aiohttp.ClientResponse) -> KubeError:
    """The error that an answer other than 2xx means."""
    status = response.status
    if status < 400:
        return KubeError(0, f"The API server answered with a redirect ({status}).")
    data = await _read(response, ERROR_BYTES)
    wait = response.headers.get("Retry-After", "")
    seconds = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 6 else None
    try:
        found = orjson.loads(data)
    except ValueError:
        found = None
    return error_of(found, status, seconds)


def error_of(found: Any, status: int, retry_after: int | None = None) -> KubeError:
    """The error that a Status means.

    found: a Status, or any other JSON. status: of HTTP. retry_after: seconds of the header.
    """
    if not isinstance(found, dict) or found.get("kind") != "Status":
        message = f"The answer of the API server is {status}, without an explanation."
        return KubeError(status, message, retry_after=_bounded(retry_after))
    details = found.get("details")
    details = details if isinstance(details, dict) else {}
    raw = details.get("causes")
    causes = tuple(
        (_text(item.get("field"), CAUSE_CHARACTERS), _text(item.get("message"), CAUSE_CHARACTERS))
        for item in (raw if isinstance(raw, list) else [])[:CAUSES_AT_MOST]
        if isinstance(item, dict)
    )
    seconds = details.get("retryAfterSeconds")
    if retry_after is None and isinstance(seconds, int) and seconds > 0:
        retry_after = seconds
    return KubeError(
        status,
        _text(found.get("message"), MESSAGE_CHARACTERS) or f"The API server answered {status}.",
        reason=_text(found.get("reason"), 64),
        causes=causes,
        retry_after=_bounded(retry_after),
    )


def _bounded(seconds: int | None) -> int | None:
    return None if seconds is None else min(seconds, RETRY_AFTER_AT_MOST)


def _text(value: object, characters: int) -> str:
    """A text of at most about so many characters; its middle can be a whole object."""
    if not isinstance(value, str):
        return ""
    if len(value) <= characters:
        return value
    half = characters // 2
    return f"{value[:half]} ... {value[-half:]}"


async def _read(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body, of which at most a block more than `most_bytes` is read."""
    data = bytearray()
    async for block in response.content.iter_any():
        data += block
        if len(data) > most_bytes:
            break
    return bytes(data)
