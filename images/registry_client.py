"""Reads a manifest from a registry, with an anonymous token if the registry requires one.

https://distribution.github.io/distribution/spec/auth/token/ describes the token. Answers are
limited in size, and no redirect is followed, because it could lead a token to another host.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from urllib.parse import parse_qsl, urlencode, urlsplit

from images.references import DOCKER_HUB, BaseImageError, Reference
from images.registry import is_loopback

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
MOST_BYTES = 4 * 2**20  # the limit of registries for a manifest
TIMEOUT_SECONDS = 30

_ACCEPT = ", ".join((*sorted(INDEXES), *sorted(MANIFESTS)))
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')
_TOKEN = re.compile(r"[\x21-\x7e]{1,32768}")
_HUB_ADDRESS = "registry-1.docker.io"


@dataclass(frozen=True)
class Answer:
    """The answer of an HTTP server. body: only that of a success."""

    status: int
    headers: Message
    body: bytes


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        """Let the redirect itself be the answer."""


def registry_address(registry: str) -> str:
    """Return the address of a registry: plain HTTP for a loopback address, and else HTTPS."""
    scheme = "http" if is_loopback(registry) else "https"
    return f"{scheme}://{_HUB_ADDRESS if registry == DOCKER_HUB else registry}"


def get_manifest(reference: Reference) -> Answer:
    """Get the index or the manifest of a tag. Raise BaseImageError for another answer."""
    address = registry_address(reference.registry)
    url = f"{address}/v2/{reference.repository}/manifests/{reference.tag}"
    headers = {"Accept": _ACCEPT}
    answer = _get(url, headers)
    if answer.status == 401:
        token = _token(reference, answer.headers.get_all("WWW-Authenticate", []))
        answer = _get(url, {**headers, "Authorization": f"Bearer {token}"})
    if answer.status != 200:
        raise BaseImageError(_refusal(reference, answer))
    return answer


def _token(reference: Reference, challenges: list[str]) -> str:
    """An anonymous token with which the repository can be read."""
    bearer = next((it for it in challenges if it.lower().startswith("bearer ")), None)
    if bearer is None:
        raise BaseImageError(_login(reference))
    parameters = dict(_PARAMETER.findall(bearer))
    realm = _checked_realm(reference, parameters.get("realm", ""))
    query = {"service": parameters["service"]} if parameters.get("service") else {}
    query["scope"] = f"repository:{reference.repository}:pull"
    parts = urlsplit(realm)
    asked = urlencode([*parse_qsl(parts.query), *query.items()])
    answer = _get(parts._replace(query=asked, fragment="").geturl(), {})
    if answer.status in {401, 403}:
        raise BaseImageError(_login(reference))
    if answer.status != 200:
        raise BaseImageError(
            f"{reference}: the token server {printable(parts.netloc)} has answered with HTTP "
            f"status {answer.status}. Try again later."
        )
    try:
        found = json.loads(answer.body)
        token = found.get("token") or found.get("access_token")
        if _TOKEN.fullmatch(token):
            return str(token)
    except (ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise BaseImageError(
        f"{reference}: {printable(parts.netloc)} has answered without a token. Try again later, or "
        "use another registry."
    )


def _checked_realm(reference: Reference, realm: str) -> str:
    """The address of the token server, which is outside of the loopback only with HTTPS."""
    try:
        parts = urlsplit(realm)
        is_safe = parts.scheme == "https" or (
            parts.scheme == "http" and is_loopback(reference.registry) and is_loopback(parts.netloc)
        )
        if is_safe and parts.hostname and "@" not in parts.netloc and realm.isascii():
            return realm
    except ValueError:
        pass
    raise BaseImageError(
        f"{reference}: the registry refers to the token server {printable(realm)!r}, which has no "
        "valid HTTPS address. Use another registry."
    )


def _get(url: str, headers: dict[str, str]) -> Answer:
    """Get an address. Raise BaseImageError without an answer, or for one that is too large."""
    host = urlsplit(url).netloc
    # The host's proxy does not apply to its own loopback.
    proxies: dict[str, str] | None = {} if is_loopback(host) else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), _NoRedirects)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            body = answer.read(MOST_BYTES + 1)
            found = Answer(answer.status, answer.headers, body)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, b"")
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise BaseImageError(
            f"{printable(host)} does not answer: {printable(str(reason))}. Check the name of the "
            "registry, the network, and the proxy."
        ) from error
    if len(body) > MOST_BYTES:
        raise BaseImageError(
            f"{printable(host)} has answered with more than {MOST_BYTES // 2**20} MiB, which no "
            "manifest has. Check the reference of the image."
        )
    return found


def _login(reference: Reference) -> str:
    return (
        f"{reference}: the registry requires a login, or has no such image. Check the reference, "
        "or find the digest with a program that is logged in, and build with "
        f"--base {reference}@DIGEST."
    )


def _refusal(reference: Reference, answer: Answer) -> str:
    """One sentence on an answer without a manifest."""
    match answer.status:
        case 401 | 403:
            return _login(reference)
        case 404:
            return f"{reference}: the registry has no such image. Check its name and tag."
        case 429:
            return f"{reference}: the registry limits requests (HTTP 429). Try again later."
        case status if 300 <= status < 400:
            place = printable(answer.headers.get("Location", "an unknown address"))
            return (
                f"{reference}: the registry redirects to {place}, and no redirect is followed. Use "
                "a reference with the registry that has the image."
            )
        case status:
            return f"{reference}: unexpected HTTP status {status}. Try again later."


def printable(text: str) -> str:
    """A text of a server without control characters, in at most 200 characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
