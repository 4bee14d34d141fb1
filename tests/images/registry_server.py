"""A small registry over HTTP or TLS, whose answers the test decides, and a base image in it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
# The digests are those of `sha256sum`.
EMPTY = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
INDEX = (
    '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":['
    '{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"'
    f'{EMPTY}","size":2,"platform":{{"architecture":"amd64","os":"linux"}}}}]}}'
).encode()
INDEX_DIGEST = "sha256:f9d3c777d6460c341ac1e9ab1ae5ba1da5d59b0c190b9d7b0ba1fe051c8d81eb"
MANIFEST = (
    f'{{"schemaVersion":2,"config":{{"digest":"{EMPTY}"}},"layers":[{{"digest":"{EMPTY}"}}]}}'
).encode()
MANIFEST_DIGEST = "sha256:78d0e9ff0ba0125553681d158815d388c603be3c7fff51c98238bbbe2b881aad"


@dataclass(frozen=True)
class Reply:
    """An answer of the server."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request. path: with the query."""

    path: str
    headers: dict[str, str]

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization")


def index(digest: str = INDEX_DIGEST, body: bytes = INDEX, kind: str = INDEX_TYPE) -> Reply:
    """The index of the base image, as a registry answers it."""
    return Reply(200, body, {"Content-Type": kind, "Docker-Content-Digest": digest})


class RegistryServer:
    """Answers requests on the loopback address, as a context manager. host: `127.0.0.1:PORT`."""

    def __init__(
        self, reply: Callable[[Asked], Reply] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.reply = reply or (lambda _: index())
        self.asked: list[Asked] = []
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = Asked(self.path, dict(self.headers.items()))
                registry.asked.append(asked)
                reply = registry.reply(asked)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self.host = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def with_token(realm: str, token: str, reply: Reply | None = None) -> Callable[[Asked], Reply]:
    """The answers of a registry that requires a token of `realm`."""
    challenge = f'Bearer realm="{realm}",service="registry.test",scope="repository:x:pull,push"'

    def answer(asked: Asked) -> Reply:
        if asked.token == f"Bearer {token}":
            return reply or index()
        return Reply(401, b"", {"WWW-Authenticate": challenge})

    return answer
