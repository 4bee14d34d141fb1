"""An HTTP server with answers of the test, which remembers its requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Self


@dataclass
class Answer:
    """`cut`: bytes of the body after which the connection breaks."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


Request = BaseHTTPRequestHandler
Answering = Callable[[Request], Answer]


def s3_error(code: str, status: int) -> Answer:
    """An error in the form of S3, with a secret that must never reach a message."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>about very-secret</Message>"
        "<AWSAccessKeyId>AKIATESTTESTTESTTEST</AWSAccessKeyId></Error>"
    )
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


class StubServer:
    """A server whose `answer` can be replaced at any time."""

    def __init__(self) -> None:
        self.reset()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do(self) -> None:
                stub.requests.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                answer = stub.answer(self)
                self.send_response(answer.status)
                headers = {"Content-Length": str(len(answer.body))} | answer.headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.cut])
                if answer.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        self.answer: Answering = lambda _: Answer(404)
        self.requests: list[str] = []

    def __enter__(self) -> Self:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
