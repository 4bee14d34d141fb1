"""aiohttp's AppRunner, whose answers to what is not HTTP have OpenAI's envelope, too.

No middleware sees a request that aiohttp cannot parse: its RequestHandler answers it with a line of
text. OpenAI's clients up to 0.28 report such a line as an "Invalid response object".
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.web_protocol import RequestHandler

from finetune_web.answers import problem_response
from finetune_web.problems import Problem, internal, invalid

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
    """Of one connection."""

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
        if isinstance(exc, HttpProcessingError):
            logger.debug("not HTTP: %s", exc)
            problem = _not_http(exc)
        else:
            problem = _own_error(exc)
        response = problem_response(problem)
        response.headers["Server"] = self.server
        response.force_close()
        return response


def _not_http(error: HttpProcessingError) -> Problem:
    if isinstance(error, LineTooLong):
        return invalid(
            f"The request line or a header is longer than {HEADER_BYTES // 2**10} KiB.",
            code="headers_too_large",
        )
    return invalid("The request is not valid HTTP.", code="bad_request")


def _own_error(error: BaseException | None) -> Problem:
    request_id = f"req-{secrets.token_hex(12)}"
    logger.error("request %s", request_id, exc_info=error)
    return internal("server", request_id)
