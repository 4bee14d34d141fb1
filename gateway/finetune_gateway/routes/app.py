"""The application: every answer has OpenAI's envelope, and every request a caller and an id."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable

from aiohttp import web

from finetune_gateway.problems import internal
from finetune_gateway.routes import context
from finetune_gateway.routes.context import (
    AUTHENTICATE,
    CALLER,
    OPEN_STREAMS,
    REQUEST_ID,
    SERVICES,
    Authenticate,
    Services,
)
from finetune_gateway.routes.open_streams import OpenStreams
from finetune_web.answers import problem_response
from finetune_web.problems import Problem, invalid, undecodable, unknown_url

logger = logging.getLogger(__name__)

SERVER = "finetune-gateway"  # in answers, in place of the versions of libraries
CLIENT_LEFT = 499  # as in the logs of nginx

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(
    parts: Services, routes: Iterable[web.RouteDef], authenticate: Authenticate
) -> web.Application:
    """The application with these routes. All of them need a caller."""
    app = web.Application(middlewares=[_envelope, _identify], client_max_size=0)
    app[SERVICES] = parts
    app[AUTHENTICATE] = authenticate
    app[OPEN_STREAMS] = OpenStreams()
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(_close_streams)
    app.on_cleanup.append(_close_backends)
    app.add_routes(routes)
    return app


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn each error into the envelope: also aiohttp's own 404 and 405, and our bugs."""
    request[REQUEST_ID] = f"req-{secrets.token_hex(12)}"
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return problem_response(unknown_url(request.method, request.path[:200]))
    except web.HTTPException as error:
        return problem_response(invalid(f"{error.reason}.", code="bad_request"))
    except web.RequestPayloadError:
        return problem_response(undecodable())
    except ConnectionError:  # the client has left, so that only the log shows this answer
        return web.Response(status=CLIENT_LEFT)
    except Exception:
        request_id = request[REQUEST_ID]
        logger.exception("request %s: %s %s", request_id, request.method, request.path[:200])
        return problem_response(internal(request_id))


@web.middleware
async def _identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[CALLER] = context.authenticate(request)
    return await handler(request)


async def _close_streams(app: web.Application) -> None:
    app[OPEN_STREAMS].close()


async def _close_backends(app: web.Application) -> None:
    await app[SERVICES].backends.close()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The headers of OpenAI's API. The old clients print `request-id`, so it is not sent."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
    response.headers["Server"] = SERVER
    settings = request.app[SERVICES].settings
    response.headers["OpenAI-Organization"] = settings.shown_organization
