"""Answers of JSON, of errors, and of metrics."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from finetune_web.problems import Problem


def json_response(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, content_type="application/json")


def problem_response(problem: Problem) -> web.Response:
    response = json_response(problem.envelope, problem.status)
    response.headers.update(problem.headers)
    return response


def metrics_response(registry: CollectorRegistry) -> web.Response:
    """The metrics of a process, for Prometheus."""
    return web.Response(
        body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )
