"""What no handler sees still gets OpenAI's envelope: requests that are not HTTP, and our bugs."""

import asyncio
import json
import logging

import pytest
from aiohttp import web

from finetune_web.app_runner import HEADER_BYTES, EnvelopeRunner

HOST = "Host: x\r\n"
FIVE = "Content-Length: 5\r\n\r\nhello"
CHUNKED = f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n"
SECRET = "sk-ft-private"


async def answer_of(text: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """The status, the headers, and the body of the last answer on the connection."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    @web.middleware
    async def broken(request: web.Request, handler: object) -> web.StreamResponse:
        if request.path == "/broken":
            raise KeyError(SECRET)
        return await handler(request)  # type: ignore[operator,no-any-return]

    app = web.Application(middlewares=[broken])
    app.router.add_route("*", "/{path:.*}", echo)
    runner = EnvelopeRunner(app, server="finetune-test", access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        async with asyncio.timeout(20):
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
            writer.write(text)
            raw = await reader.read()
            writer.close()
    finally:
        await runner.cleanup()
    head, _, body = raw[raw.rindex(b"HTTP/1.") :].partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.decode().split(": ", 1) for line in lines)
    return status.split(b" ", 1)[1], headers, body


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("garbage\r\n\r\n", "bad_request"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "bad_request"),  # TLS
        ("GET\r\n\r\n", "bad_request"),
        (f"GET / HTTP/9\r\n{HOST}\r\n", "bad_request"),
        (f"GE\x00T / HTTP/1.1\r\n{HOST}\r\n", "bad_request"),
        (f"GET / HTTP/1.1\r\n{HOST}Content-Length: x\r\n\r\n", "bad_request"),
        (f"GET / HTTP/1.1\r\n{HOST}Content-Length: -1\r\n\r\n", "bad_request"),
        (f"GET / HTTP/1.1\r\n{HOST}Authorization\r\n\r\n", "bad_request"),
        (f"GET / HTTP/1.1\r\n{HOST}Authorization: Bearer {SECRET}\x00\r\n\r\n", "bad_request"),
        (f"{CHUNKED}Content-Length: 3\r\n\r\n0\r\n\r\n", "bad_request"),
        (f"GET / HTTP/1.1\r\n{HOST}X: {'a' * (HEADER_BYTES + 1)}\r\n\r\n", "headers_too_large"),
        (f"GET /{'a' * HEADER_BYTES} HTTP/1.1\r\n{HOST}\r\n", "headers_too_large"),
        (f"GET / HTTP/1.1\r\n{HOST}{'a' * HEADER_BYTES * 2}: b\r\n\r\n", "headers_too_large"),
        (f"POST / HTTP/1.1\r\n{HOST}Content-Encoding: br\r\n{FIVE}", "invalid_encoding"),
        (f"GET / HTTP/1.1\r\n{HOST}\r\nGET / {SECRET}\r\n\r\n", "bad_request"),  # the second one
    ],
)
async def test_what_is_not_http_gets_the_envelope(
    text: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        status, headers, body = await answer_of(text.encode("latin-1"))
    assert status == b"400 Bad Request"
    assert headers["Server"] == "finetune-test"
    assert headers["x-request-id"].startswith("req-")
    assert headers["Content-Type"] == "application/json"
    error = json.loads(body)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert SECRET.encode() not in body
    assert caplog.text == ""  # the access log has a line for it


async def test_the_largest_header_is_read() -> None:
    filler = "a" * (HEADER_BYTES - 10)
    text = f"GET / HTTP/1.1\r\n{HOST}Connection: close\r\nX: {filler}\r\n\r\n"
    status, _, body = await answer_of(text.encode())
    assert (status, body) == (b"200 OK", b"0")


async def test_an_error_of_a_middleware_is_told_with_the_id_of_its_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    status, _, body = await answer_of(f"GET /broken HTTP/1.1\r\n{HOST}\r\n".encode())
    assert status == b"500 Internal Server Error"
    message = json.loads(body)["error"]["message"]
    assert SECRET not in message
    (record,) = caplog.records
    assert record.getMessage().removeprefix("request ") in message
    assert record.exc_info and isinstance(record.exc_info[1], KeyError)
