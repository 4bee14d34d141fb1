"""The operator process: watches, workers, metrics, and probes, until a signal ends it."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import kopf
import uvloop
from aiohttp import web

from finetune_operator.core.key import Key
from finetune_operator.handlers.event_recorder import EventRecorder
from finetune_operator.handlers.reconcile import Reconciler
from finetune_operator.handlers.watches import (
    build_kopf_settings,
    build_registry,
    dead_watches,
    sweep,
    watched_by,
)
from finetune_operator.handlers.workqueue import WorkQueue
from finetune_operator.kube.access_review import AccessReviewer
from finetune_operator.kube.client import Client
from finetune_operator.kube.discovery import ServedVersion
from finetune_operator.kube.kueue import Kueue
from finetune_operator.kube.observe import POD_GROUPS, Observer
from finetune_operator.kube.progress import ProgressReader
from finetune_operator.kube.release_models import release_models
from finetune_operator.kube.store import Store
from finetune_operator.settings import Settings
from finetune_operator.telemetry import reconcile_metrics
from finetune_operator.telemetry.request_metrics import REGISTRY
from finetune_web.answers import metrics_response
from finetune_web.log import add_log_level, configure_log
from finetune_web.settings_file import load_settings
from finetune_web.sockets import listen

logger = logging.getLogger("finetune_operator")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="finetune-operator",
        description="Run FineTunes on the Kubernetes cluster of the current login.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="Watch FineTunes and run them until stopped.")
    run.add_argument(
        "--settings",
        type=Path,
        default=Path("/etc/finetune-operator/settings.yaml"),
        help="Settings file that the chart writes (default: %(default)s).",
    )
    run.add_argument(
        "--probe-port",
        type=int,
        default=8080,
        help="Port of /healthz and /readyz (default: %(default)s).",
    )
    run.add_argument(
        "--metrics-port", type=int, default=8081, help="Port of /metrics (default: %(default)s)."
    )
    add_log_level(run)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    configure_log(options.log_level)
    logging.getLogger("kopf").setLevel(logging.WARNING)
    try:
        settings = load_settings(options.settings, Settings)
    except ValueError as error:
        print(f"finetune-operator: {error}", file=sys.stderr)
        return 2
    uvloop.run(serve(settings, options.probe_port, options.metrics_port))
    return 0


async def serve(settings: Settings, probe_port: int, metrics_port: int) -> None:
    """Run until a signal arrives, or until a watch ends that only a restart can reopen."""
    queue: WorkQueue[Key] = WorkQueue()
    store = Store()
    watched = watched_by(settings)
    ready = asyncio.Event()
    reconcile_metrics.HEALTH.follow(queue.__len__, lambda: dead_watches(watched), watched)
    async with Client(settings.request_timeout_seconds) as client, ProgressReader() as progress:
        event_recorder = EventRecorder(client)
        catalog = frozenset(model.name for model in settings.models)
        kueue = Kueue(client, may_read=settings.reads_kueue, version=settings.kueue_version)
        pod_groups = ServedVersion(POD_GROUPS) if settings.pod_groups else None
        observer = Observer(client, store, progress, kueue, catalog, pod_groups)
        reconciler = Reconciler(observer, settings, queue, event_recorder)
        servers = [
            await _serve_http(probe_port, _probes(reconciler, ready, watched)),
            await _serve_http(metrics_port, _metrics(client, settings)),
        ]
        await kueue.discover()
        reconciling = asyncio.create_task(reconciler.run(), name="reconciler")
        recording = asyncio.create_task(event_recorder.run(), name="event-recorder")
        sweeping = asyncio.create_task(sweep(client, queue, store, settings), name="sweep")
        where = settings.namespace or "all namespaces"
        logger.info("watching FineTunes in %s", where)
        try:
            await kopf.operator(
                registry=build_registry(queue, store, settings),
                settings=build_kopf_settings(bool(settings.namespace)),
                namespaces=[settings.namespace] if settings.namespace else [],
                clusterwide=not settings.namespace,
                standalone=True,
                ready_flag=ready,
            )
        finally:
            for task in (reconciling, sweeping):
                task.cancel()
            await asyncio.gather(reconciling, sweeping, return_exceptions=True)
            if settings.deletes_models:
                await release_models(client, settings)
            await event_recorder.finish()
            recording.cancel()
            await asyncio.gather(recording, return_exceptions=True)
            for server in servers:
                await server.cleanup()


def _probes(
    reconciler: Reconciler, ready: asyncio.Event, watched: tuple[str, ...]
) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        problems = [f"the watch of {plural} has ended" for plural in dead_watches(watched)]
        if reconciler.is_stuck:
            problems.append("a reconcile does not finish")
        if ready.is_set() and problems:
            return web.Response(status=500, text="; ".join(problems))
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        if ready.is_set() and not dead_watches(watched):
            return web.Response(text="ok")
        return web.Response(status=503, text="the watches are not open yet")

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def _metrics(client: Client, settings: Settings) -> web.Application:
    access = AccessReviewer(client)

    async def show(request: web.Request) -> web.Response:
        if settings.metrics_token_review:
            status = await access.check(request.headers.get("Authorization", ""))
            if status != 200:
                return web.Response(status=status)
        return metrics_response(REGISTRY)

    app = web.Application()
    app.add_routes([web.get("/metrics", show)])
    return app


async def _serve_http(port: int, app: web.Application) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.SockSite(runner, listen("", port)).start()
    return runner
