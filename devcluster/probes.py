"""Health probes of running components.

A probe never raises: a component that does not respond is unhealthy. Probes ignore proxies of the
environment, because all components are on this machine.
"""

import http.client
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from devcluster.certificates import Pair


@dataclass(frozen=True)
class HttpProbe:
    """Healthy if GET `url` returns 200.

    authority: verifies the server. client: the certificate of the client.
    """

    url: str
    authority: Path | None = None
    client: Pair | None = None

    def is_healthy(self) -> bool:
        return self.status() == 200

    def status(self) -> int | None:
        """The HTTP status; None without a response."""
        return self.fetch()[0]

    def fetch(self, timeout: float = 2.0) -> tuple[int | None, bytes]:
        """The HTTP status and the body; None and no bytes without a response."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or 80
        try:
            connection: http.client.HTTPConnection
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self.authority)
                if self.client is not None:
                    context.load_cert_chain(self.client.certificate, self.client.key)
                connection = http.client.HTTPSConnection(
                    host, port, timeout=timeout, context=context
                )
            else:
                connection = http.client.HTTPConnection(host, port, timeout=timeout)
            try:
                connection.request("GET", parts.path or "/")
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None, b""


@dataclass(frozen=True)
class SocketProbe:
    """Healthy if a Unix socket accepts connections."""

    path: Path

    def is_healthy(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2.0)
            try:
                client.connect(str(self.path))
            except OSError:
                return False
            return True


@dataclass(frozen=True)
class NameProbe:
    """Healthy if the DNS server at `server` resolves `name`."""

    server: str
    name: str

    def is_healthy(self) -> bool:
        identity = os.urandom(2)
        labels = b"".join(bytes([len(part)]) + part.encode() for part in self.name.split("."))
        # One question, recursion desired: type A, class IN.
        query = identity + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1.0)
            try:
                client.sendto(query, (self.server, 53))
                answer = client.recv(512)
            except OSError:
                return False
        if len(answer) < 12 or answer[:2] != identity:
            return False
        flags, _, answers = struct.unpack(">3H", answer[2:8])
        return bool(flags & 0x000F == 0 and answers > 0)


@dataclass(frozen=True)
class CallProbe:
    """Healthy if a function returns true."""

    call: Callable[[], bool]

    def is_healthy(self) -> bool:
        return self.call()


Probe = HttpProbe | SocketProbe | NameProbe | CallProbe


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.1) -> bool:
    """Wait up to `timeout` seconds for a condition; returns whether it became true."""
    deadline = time.monotonic() + timeout
    while True:
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(interval)
