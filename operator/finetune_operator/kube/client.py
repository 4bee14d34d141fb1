"""A small asynchronous client of the Kubernetes API on aiohttp, with kopf's login.

The operator needs nine kinds of requests on plain dicts. The official client would cost 75 MB on
disk and over 100 MB of memory for its models.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import aiohttp
import kopf
import orjson

from finetune_api.wire import JsonObject
from finetune_operator.core.refusals import Cause
from finetune_operator.kube import paths
from finetune_operator.telemetry import request_metrics

UNAUTHORIZED, TOO_MANY = 401, 429
TRIES = 5  # requests in total if a busy API server answers 429
PAGE = 250  # objects in one answer to a list
WAIT_AT_MOST = 5.0  # seconds; the work queue does longer waits
MESSAGE_CHARACTERS, CAUSES_AT_MOST = 1200, 8  # of an error
CONNECT_SECONDS = 10.0

JsonObjects: TypeAlias = list[JsonObject]


class ApiError(Exception):
    """An HTTP error, or (with status 0) a request without an answer.

    retry_after: the seconds that a busy API server requests. reason and causes: of the Status that
    the API server answered, if it did.
    """

    def __init__(
        self,
        status: int,
        message: str,
        retry_after: float = 1.0,
        *,
        reason: str = "",
        causes: tuple[Cause, ...] = (),
    ) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status
        self.message = message
        self.reason = reason
        self.causes = causes
        self.verb, self.resource = "", ""  # of the request, such as list and services
        self.retry_after = min(retry_after, WAIT_AT_MOST)

    @property
    def is_outdated(self) -> bool:
        """Whether a test of a JSON patch failed: the object has another UID or version."""
        is_invalid = self.status == 422 and not self.causes
        return is_invalid and self.message.startswith("the server rejected our request")


def login(**kwargs: Any) -> kopf.ConnectionInfo:
    """Log in for kopf's watches and our requests: with the service account, else the kubeconfig."""
    info = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
    if info is None:
        raise kopf.LoginError("found neither a service account nor a kubeconfig")
    return info


class Client:
    """One session. Use it as an asynchronous context manager."""

    def __init__(self, timeout_seconds: float = 30) -> None:
        """timeout_seconds: of one request. Those without an answer raise ApiError."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, connect=CONNECT_SECONDS)
        self._session: aiohttp.ClientSession | None = None
        self._server = ""

    async def __aenter__(self) -> "Client":
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def _connect(self) -> None:
        if self._session is not None:
            await self._session.close()
        info = login(logger=logging.getLogger(__name__), settings=kopf.OperatorSettings())
        self._server = info.server.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=info.as_ssl_context(), limit=32),
            headers=info.as_http_headers(),
            timeout=self._timeout,
        )

    async def get(self, path: str, **params: str) -> JsonObject:
        return await self._request("GET", path, params=params)

    async def list(self, path: str, **params: str) -> JsonObjects:
        items: JsonObjects = (await self.get(path, **params)).get("items", [])
        return items

    async def pages(self, path: str, **params: str) -> AsyncIterator[JsonObject]:
        """All objects of a collection, of which only one page is in memory."""
        params["limit"] = str(PAGE)
        while True:
            found = await self.get(path, **params)
            for item in found.get("items", []):
                yield item
            token = found.get("metadata", {}).get("continue")
            if not token:
                return
            params["continue"] = token

    async def create(self, path: str, body: JsonObject, **params: str) -> JsonObject:
        return await self._request("POST", path, params=params, body=body)

    async def json_patch(self, path: str, body: JsonObjects) -> JsonObject:
        return await self._request("PATCH", path, body=body, kind="application/json-patch+json")

    async def delete(self, path: str, body: JsonObject) -> JsonObject:
        return await self._request("DELETE", path, body=body)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
    ) -> JsonObject:
        has_renewed = False
        for left in reversed(range(TRIES)):
            try:
                return await self._send(method, path, params, body, kind)
            except ApiError as error:
                if left and error.status == TOO_MANY:
                    await asyncio.sleep(error.retry_after)
                elif left and error.status == UNAUTHORIZED and not has_renewed:
                    has_renewed = True
                    await self._connect()  # the kubelet renews the service account's token
                else:
                    raise
        raise AssertionError("unreachable")

    async def _send(
        self, method: str, path: str, params: dict[str, str] | None, body: Any, kind: str
    ) -> JsonObject:
        assert self._session is not None
        if method != "GET":
            request_metrics.count_write(method, path)
        data = None if body is None else orjson.dumps(body)
        headers = {} if body is None else {"Content-Type": kind}
        try:
            async with self._session.request(
                method, self._server + path, params=params, data=data, headers=headers
            ) as response:
                text = await response.read()
                if response.status >= 400:
                    request_metrics.count_error(response.status)
                    wait = response.headers.get("Retry-After", "")
                    seconds = float(wait) if wait.isdigit() else 1.0
                    error = _to_error(response.status, text, seconds)
                    error.verb, error.resource = paths.describe(method, path)
                    raise error
                found: JsonObject = orjson.loads(text)
                return found
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            request_metrics.count_error(0)
            raise ApiError(0, f"{method} {path}: {error or type(error).__name__}") from error


def _to_error(status: int, text: bytes, seconds: float) -> ApiError:
    """The error with the API server's Status; another server in between may answer anything."""
    try:
        answer = orjson.loads(text)
    except ValueError:
        answer = None
    found = answer if isinstance(answer, dict) else {}
    details = found.get("details")
    raw = details.get("causes") if isinstance(details, dict) else None
    items = [item for item in raw if isinstance(item, dict)] if isinstance(raw, list) else []
    causes = tuple(
        Cause(*(str(item.get(name) or "")[:1000] for name in Cause._fields))
        for item in items[:CAUSES_AT_MOST]
    )
    message = str(found.get("message") or text.decode(errors="replace"))[:MESSAGE_CHARACTERS]
    return ApiError(status, message, seconds, reason=str(found.get("reason") or ""), causes=causes)
