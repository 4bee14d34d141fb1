"""One line of the log for each request, and its metrics. Neither has a path or a credential."""

from __future__ import annotations

import logging
from contextlib import suppress

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from finetune_gateway.kube.caller import Caller
from finetune_gateway.metrics import LOADING_ANSWERS, REQUEST_SECONDS, REQUESTS
from finetune_gateway.routes.context import CALLER, REQUEST_ID

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNKNOWN = "unknown"  # the label and the word for everything that no route has
EVENT_STREAM = "text/event-stream"

logger = logging.getLogger("finetune_gateway.requests")


class AccessLog(AbstractAccessLogger):
    """aiohttp calls it at the end of each request, also of one that no handler has seen."""

    @property
    def enabled(self) -> bool:
        """The metrics need each request, whatever the level of the log is."""
        return True

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """time: seconds."""
        route, status = _route(request), response.status
        method = request.method if request.method in METHODS else UNKNOWN
        REQUESTS.labels(method, route, str(status)).inc()
        if response.content_type != EVENT_STREAM:  # which is open for as long as a training runs
            REQUEST_SECONDS.labels(route).observe(time)
        if status == 409:
            LOADING_ANSWERS.inc()
        request_id = request.get(REQUEST_ID, "-")
        sender = _sender(request)
        logger.info("%s %s %s %d %.3f s %s", request_id, method, route, status, time, sender)


def _route(request: web.BaseRequest) -> str:
    """The template of the path, such as `/v1/files/{id}`."""
    resource = None
    if isinstance(request, web.Request):
        with suppress(AssertionError):  # of aiohttp, for a request that it could not parse
            resource = request.match_info.route.resource
    return resource.canonical if resource is not None else UNKNOWN


def _sender(request: web.BaseRequest) -> str:
    """The account of a key; of a token, digits that tell apart two of them; or a dash."""
    found = request.get(CALLER)
    if not isinstance(found, Caller):
        return "-"
    return found.account or f"token-{found.fingerprint[:8]}"
