"""aiohttp's AppRunner, whose answers to what is not HTTP have OpenAI's envelope, too.

No middleware sees a request that aiohttp cannot parse: its RequestHandler answers it with a line of
text. OpenAI's clients up to 0.28 report such a line as an "Invalid response object".
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from finetune_web.answers import problem_response
from finetune_web.problems import Problem, internal, invalid, undecodable

# A token of an identity provider can have a list of groups; aiohttp's own limit is 8 KiB.
HEADER_BYTES = 64 * 2**10

logger = logging.getLogger(__name__)


class EnvelopeRunner(web.AppRunner):
    """Runs an application whose header lines have at most HEADER_BYTES.

    server: the value of the Server header of these answers, in place of the versions of libraries.
    """

    def __init__(self, app: web.Application, *, server: str, **options: Any) -> None:
        super().__init__(app, max_line_size=HEADER_BYTES, max_field_size=HEADER_BYTES, **options)
        self._name = server

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        made.__class__ = _Server  # it has no other way to a handler of our own
        cast("_Server", made).name = self._name
        return made


class _Server(web.Server):
    name: str

    def __call__(self) -> RequestHandler:
        handler = _Handler(self, loop=self._loop, **self._kwargs)
        handler.server = self.name
        return handler


class _Handler(RequestHandler):
    """Serves one connection."""

    __slots__ = ("server",)
    server: str

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp calls it for a request that it cannot parse, and for an error of a middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("A part of another answer has been sent.")
        request_id = f"req-{secrets.token_hex(12)}"
        self.log_exception("request %s", request_id, exc_info=exc)
        is_theirs = isinstance(exc, HttpProcessingError)
        response = problem_response(_not_http(exc) if is_theirs else internal("server", request_id))
        response.headers["Server"] = self.server
        response.headers["x-request-id"] = request_id
        response.force_close()
        return response

    def log_exception(
        self, *words: Any, exc_info: BaseException | None = None, **more: Any
    ) -> None:
        """aiohttp also calls it for the rest of a body that no one has read."""
        is_theirs = isinstance(exc_info, (HttpProcessingError, web.RequestPayloadError))
        logger.log(logging.DEBUG if is_theirs else logging.ERROR, *words, exc_info=exc_info)


def _not_http(error: BaseException | None) -> Problem:
    if isinstance(error, LineTooLong):
        return invalid(
            f"The request line or a header is longer than {HEADER_BYTES // 2**10} KiB.",
            code="headers_too_large",
        )
    if isinstance(error, ContentEncodingError):
        return undecodable()
    return invalid("The request is not valid HTTP.", code="bad_request")
