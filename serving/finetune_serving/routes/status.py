"""Probes and metrics, on a port of their own without the secret."""

from __future__ import annotations

from aiohttp import web

from finetune_serving.metrics import REGISTRY
from finetune_serving.routes.activity import Activity
from finetune_web.answers import metrics_response


def build_status_app(activity: Activity) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        if activity.is_ending:
            return web.Response(status=503, text="the server ends")
        return web.Response(text="ok")

    async def show(_: web.Request) -> web.Response:
        return metrics_response(REGISTRY)

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", show)]
    )
    return app
