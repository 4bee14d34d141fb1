"""Object stores that lack a part of S3, or implement it in their own way: moto behind a proxy."""

import re
from collections.abc import Callable
from itertools import count

from aiohttp import web

from tests.support.proxy import Answer, Store, s3_error

CONDITIONS = ("If-Match", "If-None-Match")
LISTED = re.compile(rb"<ETag>(.*?)</ETag>")
Rename = Callable[[str], str | None]  # from an ETag to the ETag that clients see, with quotes


class Etags(Store):
    """ETags of another form. A condition that was sent is one that this store does not match."""

    def __init__(
        self,
        answered: Rename,
        listed: Rename | None = None,
        *,
        methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST"),
    ) -> None:
        """answered: in answers about objects, to these methods. listed: in listings."""
        self._answered = answered
        self._listed = listed or answered
        self._methods = methods

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        sent = headers.pop("If-Match", None)
        return s3_error(412, "PreconditionFailed") if sent and request.method == "GET" else None

    def alter_answer(self, request: web.Request, headers: dict[str, str], body: bytes) -> bytes:
        name = next((name for name in headers if name.lower() == "etag"), None)
        if name is not None and request.method in self._methods:
            renamed = self._answered(headers.pop(name))
            if renamed is not None:
                headers["ETag"] = renamed

        def rename(match: re.Match[bytes]) -> bytes:
            renamed = self._listed(match[1].decode().replace("&quot;", '"'))
            return b"" if renamed is None else f"<ETag>{renamed}</ETag>".encode()

        return LISTED.sub(rename, body) if b"<ListBucketResult" in body else body


class Unquoted(Store):
    """ETags without quotes, with conditions that work."""

    def alter_answer(self, request: web.Request, headers: dict[str, str], body: bytes) -> bytes:
        for name, value in headers.items():
            if name.lower() == "etag":
                headers[name] = value.strip('"')
        return body.replace(b"&quot;", b"")


class IgnoresConditions(Store):
    """A store that does not know these headers."""

    def __init__(self, *names: str) -> None:
        self._names = names or CONDITIONS

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        for name in self._names:
            headers.pop(name, None)
        return None


class RefusesConditions(Store):
    """A store that answers requests with these headers with an error."""

    def __init__(self, status: int, code: str) -> None:
        self._answer = s3_error(status, code)

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        return self._answer if any(name in headers for name in CONDITIONS) else None


class RefusesListings(Store):
    """A store that does not list unfinished uploads."""

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        is_listing = request.method == "GET" and "uploads" in request.query
        return s3_error(403, "AccessDenied") if is_listing else None


class VirtualHosts(Store):
    """A store that takes the name of the bucket from the host name only."""

    def __init__(self, domain: str) -> None:
        self._domain = domain

    def alter_request(self, request: web.Request, headers: dict[str, str]) -> Answer | None:
        return None if self._bucket(request) else s3_error(403, "SecondLevelDomainForbidden")

    def path(self, request: web.Request) -> str:
        return f"/{self._bucket(request)}{request.path_qs}"

    def _bucket(self, request: web.Request) -> str:
        host = request.host.partition(":")[0]
        bucket, dot, domain = host.partition(".")
        return bucket if dot and domain == self._domain else ""


def no_etags() -> Etags:
    return Etags(lambda _: None)


def weak_etags() -> Etags:
    return Etags(lambda tag: f"W/{tag}")


def changing_etags() -> Etags:
    numbers = count()
    return Etags(lambda _: f'"{next(numbers)}"')


def other_listings() -> Etags:
    return Etags(lambda tag: f'"{tag[3:9]}"', lambda tag: tag)


def other_gets() -> Etags:
    return Etags(lambda tag: f'"{tag[3:9]}"', lambda tag: tag, methods=("GET",))


# Stores on which everything works, if more weakly.
STORES: dict[str, Callable[[], Store]] = {
    "S3": Store,
    "no ETags": no_etags,
    "weak ETags": weak_etags,
    "changing ETags": changing_etags,
    "ETags without quotes": Unquoted,
    "other ETags in listings": other_listings,
    "other ETags in GETs": other_gets,
    "conditions are ignored": IgnoresConditions,
    "conditions are not implemented": lambda: RefusesConditions(501, "NotImplemented"),
    "conditions are bad requests": lambda: RefusesConditions(400, "InvalidArgument"),
}
