"""HTTP sessions whose connections go only to addresses that were checked."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from finetune_gateway.backends.addresses import refusal

CONNECT_SECONDS = 5.0  # for the resolution of the name and the connection
ANSWER_SECONDS = 600.0  # without a byte: clients wait as long as this
REUSE_SECONDS = 3.0  # for an idle connection: servers on uvicorn close it after 5 s
RESOLUTION_SECONDS = 5  # for which a checked address is used for new connections
HEADER_BYTES = 8190


class ForbiddenAddressError(Exception):
    """A name has an address to which the gateway does not connect. Not an OSError: no retry."""

    def __init__(self, host: str, kind: str) -> None:
        super().__init__(f"{host} has {kind}")
        self.host = host
        self.kind = kind


class CheckedResolver(AbstractResolver):
    """Resolves a name once, and returns its addresses only if each of them is allowed."""

    def __init__(self, inner: AbstractResolver, api_server: str, *, is_trusted: bool) -> None:
        """api_server: the host of the API server, an address or a name; empty: unknown."""
        self._inner = inner
        self._api_server = api_server
        self._is_trusted = is_trusted

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError, and ForbiddenAddressError."""
        found = await self._inner.resolve(host, port, family)
        api_server = await self._api_server_addresses(port)
        for result in found:
            _check(host, result["host"], api_server, is_trusted=self._is_trusted)
        return found

    async def close(self) -> None:
        await self._inner.close()

    async def _api_server_addresses(self, port: int) -> frozenset[str]:
        if self._is_trusted or not self._api_server:
            return frozenset()
        if (literal := _literal(self._api_server)) is not None:
            return frozenset({literal})
        try:
            found = await self._inner.resolve(self._api_server, port, socket.AF_UNSPEC)
        except OSError:  # without its address, the gateway cannot ask it either
            return frozenset()
        return frozenset(str(ipaddress.ip_address(it["host"].partition("%")[0])) for it in found)


def check_literal(url: str, *, is_trusted: bool) -> None:
    """Check the address in a URL, which no resolver sees. Raises ForbiddenAddressError.

    Only an administrator's URL has one: that of a Model has the name of a Service.
    """
    host = urlsplit(url).hostname or ""
    if (literal := _literal(host)) is not None:
        _check(host, literal, frozenset(), is_trusted=is_trusted)


def _literal(host: str) -> str | None:
    """The address in its usual form, if the host is one and not a name."""
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        return None


def _check(host: str, address: str, api_server: frozenset[str], *, is_trusted: bool) -> None:
    kind = refusal(address, api_server, is_trusted=is_trusted)
    if kind is not None:
        raise ForbiddenAddressError(host, kind)


def open_session(resolver: AbstractResolver) -> aiohttp.ClientSession:
    """A session that has no cookies, ignores proxies, and never decompresses an answer."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            resolver=resolver,
            limit=0,  # `Backends` bounds the number of requests
            keepalive_timeout=REUSE_SECONDS,
            ttl_dns_cache=RESOLUTION_SECONDS,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,  # a small answer must stay small
        timeout=aiohttp.ClientTimeout(
            total=None,
            connect=CONNECT_SECONDS,
            sock_connect=CONNECT_SECONDS,
            sock_read=ANSWER_SECONDS,
        ),
        headers={"Accept-Encoding": "identity", "User-Agent": "finetune-gateway"},
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        read_bufsize=2**16,
    )
