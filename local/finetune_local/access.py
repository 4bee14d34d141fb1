"""Who may use the server: programs that know the key, and no web page.

The server listens on the loopback interface only. A browser can reach it for any page that the user
visits, so requests with a foreign Host or Origin are refused before anything else.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from finetune_api.api_keys import is_key, new_key
from finetune_gateway.kube.caller import Caller
from finetune_gateway.problems import forbidden, unauthenticated

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OwnKey:
    """Authenticates the user of this machine."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, header: str) -> Caller:
        scheme, _, given = header.strip().partition(" ")
        if not given or scheme.lower() != "bearer":
            raise unauthenticated(
                "You did not provide an API key. Set OPENAI_API_KEY to the key that "
                "`finetune serve` prints.",
                "missing_api_key",
            )
        if not hmac.compare_digest(given.strip().encode(errors="replace"), self._key.encode()):
            raise unauthenticated(
                "Incorrect API key provided. Set OPENAI_API_KEY to the key that `finetune serve` "
                "prints."
            )
        return Caller({}, account="you")


@web.middleware
async def refuse_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse names that lead here from elsewhere (DNS rebinding), and pages of other origins."""
    host = request.headers.get("Host", "")
    if _hostname(f"//{host}") not in HOSTS:
        raise forbidden(
            "This server answers only to localhost and 127.0.0.1. Use the URL that "
            "`finetune serve` prints."
        )
    origin = request.headers.get("Origin")
    if origin is not None and origin != f"http://{host}":
        raise forbidden("This server does not answer to web pages of other origins.")
    return await handler(request)


def load_key(path: Path) -> str:
    """The key of the folder, which stays the same; the first call creates it. Raises OSError."""
    try:
        found = path.read_text(encoding="ascii").strip()
        if is_key(found):
            return found
    except (FileNotFoundError, UnicodeDecodeError):
        pass
    key = new_key()
    write_private(path, f"{key}\n")
    return key


def write_private(path: Path, text: str) -> None:
    """Write a new file that only the user can read, in place of a former one."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
