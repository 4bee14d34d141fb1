"""An HTTP proxy in a process of its own: CONNECT for TLS, and absolute addresses for plain HTTP.

It prints its port, and then a line for each request: the method and the target. Names of the domain
`.test` have the address that --resolve names, which nothing but the proxy knows.
"""

import argparse
import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
REFUSAL = "HTTP/1.1 {} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class ConnectProxy:
    """Runs the proxy, as a context manager."""

    def __init__(self, *options: str) -> None:
        self._command = [sys.executable, "-m", "tests.support.connect_proxy", *options]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    def stop(self) -> list[str]:
        """End the process; returns its requests, such as `CONNECT s3.test:443`."""
        self._process.terminate()
        rest, _ = self._process.communicate(timeout=10)
        return rest.splitlines()


async def serve(host: str, port: int, resolve: str, refuse: int) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, ValueError):
            await _pass_on(reader, writer, resolve, refuse)
        writer.close()

    server = await asyncio.start_server(handle, host, port, limit=2**20)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, resolve: str, refuse: int
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split("\r\n")[0].split(" ")
    print(method, target, flush=True)
    if refuse:
        writer.write(REFUSAL.format(refuse).encode())
        await writer.drain()
        return
    parts = urlsplit(target if "://" in target else f"//{target}")
    name = parts.hostname or ""
    address = resolve if resolve and name.endswith(".test") else name
    inner, outer = await asyncio.open_connection(address, parts.port or 80)
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    else:  # one request for each connection
        path = parts._replace(scheme="", netloc="").geturl()
        lines = head.replace(target.encode(), path.encode(), 1).split(b"\r\n")
        kept = [line for line in lines[:-2] if not line.lower().startswith(b"connection:")]
        outer.write(b"\r\n".join([*kept, b"Connection: close", b"", b""]))
    await asyncio.gather(_copy(reader, outer), _copy(inner, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    with suppress(OSError):
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--resolve", default="", help="address of all names that end with .test")
    parser.add_argument("--refuse", type=int, default=0, help="status of each answer")
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.resolve, options.refuse))


if __name__ == "__main__":
    main()
