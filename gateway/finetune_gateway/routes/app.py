"""The application: every answer has OpenAI's envelope, and every request a caller and an id."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable

import orjson
from aiohttp import web

from finetune_gateway.kube.caller import Caller
from finetune_gateway.problems import Problem, internal, invalid, unknown_url
from finetune_gateway.routes.context import CALLER, REQUEST_ID, SERVICES, Services

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Returns the caller of an Authorization header, or raises Problem.
Authenticate = Callable[[str], Caller]


def build_app(
    parts: Services, routes: Iterable[web.RouteDef], authenticate: Authenticate
) -> web.Application:
    """The application with these routes. All of them need a caller."""

    @web.middleware
    async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[CALLER] = authenticate(request.headers.get("Authorization", ""))
        return await handler(request)

    app = web.Application(middlewares=[_envelope, identify], client_max_size=0)
    app[SERVICES] = parts
    app.on_response_prepare.append(_add_headers)
    app.add_routes(routes)
    return app


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn each error into the envelope: also aiohttp's own 404 and 405, and our bugs."""
    request[REQUEST_ID] = f"req-{secrets.token_hex(12)}"
    try:
        return await handler(request)
    except Problem as problem:
        return respond(problem)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return respond(unknown_url(request.method, request.path[:200]))
    except web.HTTPException as error:
        return respond(invalid(f"{error.reason}.", code="bad_request"))
    except ConnectionError:  # of the client
        raise
    except Exception:
        request_id = request[REQUEST_ID]
        logger.exception("request %s: %s %s", request_id, request.method, request.path[:200])
        return respond(internal(request_id))


def respond(problem: Problem) -> web.Response:
    return web.Response(
        body=orjson.dumps(problem.envelope),
        status=problem.status,
        headers=problem.headers,
        content_type="application/json",
    )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The headers of OpenAI's API. The old clients print `request-id`, so it is not sent."""
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
    settings = request.app[SERVICES].settings
    response.headers["OpenAI-Organization"] = settings.shown_organization
