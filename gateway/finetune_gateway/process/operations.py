"""The port for Kubernetes and Prometheus: /healthz, /readyz, and /metrics."""

from __future__ import annotations

from aiohttp import web

from finetune_gateway.kube.cluster import Cluster
from finetune_gateway.metrics import REGISTRY
from finetune_web.answers import metrics_response


class Operations:
    """The state of the process, as probes see it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.is_closing = False

    def build_app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        return app

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self.is_closing:
            return web.Response(status=503, text="the process ends")
        if not await self._cluster.is_ready():
            return web.Response(status=503, text="the Kubernetes API server does not answer")
        return web.Response(text="ok")

    async def _metrics(self, _: web.Request) -> web.Response:
        return metrics_response(REGISTRY)
