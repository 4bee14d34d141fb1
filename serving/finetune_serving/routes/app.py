"""The application: every answer that is not 2xx has OpenAI's envelope."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from finetune_serving import metrics
from finetune_serving.problems import internal, unauthenticated
from finetune_serving.routes import completions, models
from finetune_serving.routes.context import BODY_BYTES, REQUEST_ID, SERVICES, Services, services
from finetune_web.answers import problem_response
from finetune_web.problems import Problem, unavailable, undecodable, unknown_url

SERVER = "finetune-serving"  # in answers, in place of the versions of libraries

logger = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def build_app(parts: Services) -> web.Application:
    app = web.Application(middlewares=[_envelope, _authenticate], client_max_size=BODY_BYTES)
    app[SERVICES] = parts
    app.on_response_prepare.append(_add_headers)
    app.add_routes([*completions.build_routes(), *models.build_routes()])
    return app


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn each error into the envelope, also aiohttp's own 404 and 405, and our bugs."""
    given = request.headers.get("X-Request-Id", "")
    is_valid = _REQUEST_ID.fullmatch(given) is not None
    request[REQUEST_ID] = given if is_valid else f"req-{secrets.token_hex(12)}"
    response = await _answer(request, handler)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else ""
    metrics.REQUESTS.labels(route, str(response.status)).inc()
    return response


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Problem as problem:
        return problem_response(problem)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
        return problem_response(unknown_url(request.method, request.path[:200]))
    except web.HTTPException as error:
        return problem_response(Problem(error.status, f"{error.reason}.", code="bad_request"))
    except web.RequestPayloadError:
        return problem_response(undecodable())
    except ConnectionError:  # of the client
        raise
    except Exception:
        request_id = request[REQUEST_ID]
        logger.exception("request %s: %s %s", request_id, request.method, request.path[:200])
        return problem_response(internal(request_id))


@web.middleware
async def _authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Compare the API key with the secret of the gateway, if there is one."""
    file = services(request).settings.secret_file
    if file is not None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(errors="replace"), _secret(file)):
            raise unauthenticated()
    return await handler(request)


def _secret(file: Path) -> bytes:
    """Read for each request, because Kubernetes replaces a mounted Secret. Raises Problem."""
    try:
        secret = file.read_bytes().strip()
    except OSError as error:
        raise unavailable(f"The secret of the gateway cannot be read: {error.strerror}.") from error
    if not secret:
        raise unavailable(f"The secret of the gateway in {file} is empty.")
    return secret


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    if REQUEST_ID in request:
        response.headers["x-request-id"] = request[REQUEST_ID]
    response.headers["Server"] = SERVER
