"""The gateway process: OpenAI's API on one port, probes and metrics on another."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from finetune_gateway.backends.holding import Backends
from finetune_gateway.backends.waking import Waking
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.files.workers import Workers
from finetune_gateway.kube.authentication import Authentication
from finetune_gateway.kube.keys import KeyRing
from finetune_gateway.kube.kube_cluster import KubeCluster
from finetune_gateway.kube.leases import HOLDER, Leases
from finetune_gateway.kube.server import (
    Server,
    is_loopback,
    server_of_kubeconfig,
    server_of_pod,
)
from finetune_gateway.process.certificate import Certificate
from finetune_gateway.process.draining import Draining
from finetune_gateway.process.operations import Operations
from finetune_gateway.routes import files as file_routes
from finetune_gateway.routes import fine_tunes, jobs, models, openapi, uploads
from finetune_gateway.routes.access_log import AccessLog
from finetune_gateway.routes.app import SERVER, build_app
from finetune_gateway.routes.completions import endpoints as completions
from finetune_gateway.routes.context import OPEN_STREAMS, Services
from finetune_gateway.settings import Settings
from finetune_storage.connect import open_storage
from finetune_storage.errors import StorageError
from finetune_web.app_runner import EnvelopeRunner
from finetune_web.log import add_log_level, configure_log
from finetune_web.settings_file import load_settings
from finetune_web.sockets import listen

ROUTES = [
    *fine_tunes.ROUTES,
    *jobs.ROUTES,
    *models.ROUTES,
    *file_routes.ROUTES,
    *uploads.ROUTES,
    *completions.ROUTES,
    *openapi.ROUTES,
]
KEEP_ALIVE_SECONDS = 75.0  # above the 60 s of usual proxies, which would use a closed connection
CLOSE_SECONDS = 2.0  # for the rest, after the requests in flight

logger = logging.getLogger("finetune_gateway")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="finetune-gateway",
        description="Serve OpenAI's fine-tuning API for the FineTunes of a namespace.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="Serve the API until stopped.")
    run.add_argument(
        "--settings",
        type=Path,
        default=Path("/etc/finetune-gateway/settings.yaml"),
        help="Settings file that the chart writes (default: %(default)s).",
    )
    run.add_argument("--address", default="", help="Address to listen on (default: all addresses).")
    run.add_argument(
        "--port", type=int, default=8000, help="Port of the API (default: %(default)s)."
    )
    run.add_argument(
        "--operations-port",
        type=int,
        default=8001,
        help="Port of /healthz, /readyz, and /metrics (default: %(default)s).",
    )
    run.add_argument(
        "--kubeconfig",
        type=Path,
        help="File with the address of the API server (default: the ServiceAccount of the pod).",
    )
    run.add_argument(
        "--tls-certificate",
        type=Path,
        metavar="FILE",
        help="Certificate chain for HTTPS. The file is read again when it changes.",
    )
    run.add_argument("--tls-key", type=Path, metavar="FILE", help="Key of the certificate.")
    add_log_level(run)
    return parser.parse_args(arguments)


@dataclass(frozen=True)
class Parts:
    """What the process needs to serve, all of which has been checked."""

    settings: Settings
    cluster: KubeCluster
    leases: Leases | None  # None: the operator serves no models
    api_server: str  # its host, to which no Model may send the gateway
    files: BucketFiles
    certificate: Certificate | None
    sockets: tuple[socket.socket, socket.socket]  # of the API and of operations


def prepare(options: argparse.Namespace) -> Parts:
    """Check the options and the settings.

    Raise ValueError, OSError, or StorageError with one sentence.
    """
    settings = load_settings(options.settings, Settings)
    certificate = _load_certificate(options, settings)
    server = (
        server_of_kubeconfig(options.kubeconfig)
        if options.kubeconfig
        else server_of_pod(os.environ)
    )
    if server.token is None:
        _check_tokenless(options, settings)
    cluster = KubeCluster(
        server,
        settings.namespace,
        timeout_seconds=settings.request_timeout_seconds,
        review_seconds=settings.review_seconds,
    )
    files = BucketFiles(open_storage(), Workers(), settings)
    api = listen(options.address, options.port)
    operations = listen(options.address, options.operations_port)
    leases = _leases(options, settings, server)
    return Parts(settings, cluster, leases, server.host, files, certificate, (api, operations))


def _check_tokenless(options: argparse.Namespace, settings: Settings) -> None:
    """Raises ValueError if something needs a token of the gateway."""
    for field, purpose, is_set in (
        ("keys", "to act for API keys", settings.keys is not None),
        ("servesModels", "to wake models", settings.serves_models),
    ):
        if is_set:
            raise ValueError(
                f"kubeconfig {options.kubeconfig}: the user of the current context has no token, "
                f"which the gateway needs {purpose}. Set token or tokenFile, or remove {field} "
                f"from {options.settings}"
            )


def _leases(options: argparse.Namespace, settings: Settings, server: Server) -> Leases | None:
    if not settings.serves_models:
        return None
    # Kubernetes sets HOSTNAME to the name of the pod.
    holder = "" if options.kubeconfig else os.environ.get("HOSTNAME", "")
    return Leases(
        server,
        settings.namespace,
        holder=holder or HOLDER,
        timeout_seconds=settings.request_timeout_seconds,
    )


def _load_certificate(options: argparse.Namespace, settings: Settings) -> Certificate | None:
    """The certificate; None for plain HTTP, where that is allowed. Raises ValueError."""
    if bool(options.tls_certificate) != bool(options.tls_key):
        raise ValueError("--tls-certificate and --tls-key need each other: give both")
    if options.tls_certificate:
        return Certificate(options.tls_certificate, options.tls_key)
    if not settings.allow_plain_http and not is_loopback(options.address):
        raise ValueError(
            f"without TLS, everyone on the network between can read API keys on "
            f"{options.address or 'all addresses'}. Give --tls-certificate and --tls-key; or, if a "
            f"proxy with TLS is in front of the gateway, set allowPlainHttp in {options.settings}"
        )
    return None


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    configure_log(options.log_level)
    try:
        parts = prepare(options)
    except (ValueError, OSError, StorageError) as error:
        sentence = " ".join(str(error).split())  # PyYAML writes several lines
        print(f"finetune-gateway: {sentence}", file=sys.stderr)
        return 2
    uvloop.run(serve(parts))
    return 0


async def serve(parts: Parts) -> None:
    """Serve until a signal arrives. Streams get a message, and requests in flight may finish."""
    settings, stop = parts.settings, asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(parts.cluster)
        operations = Operations(cluster)
        probes = web.AppRunner(operations.build_app(), access_log=None, shutdown_timeout=1)
        stack.callback(parts.files.workers.close)
        stack.push_async_callback(probes.cleanup)
        await _start(probes, parts.sockets[1], None)
        keys = KeyRing(settings.keys) if settings.keys is not None else None
        waking = await _start_waking(stack, parts.leases)
        backends = Backends(settings, api_server=parts.api_server, waking=waking)
        app = build_app(
            Services(settings, cluster, parts.files, backends),
            ROUTES,
            Authentication(settings.namespace, keys),
        )
        draining = Draining()
        draining.install(app)
        runner = EnvelopeRunner(
            app,
            server=SERVER,
            access_log_class=AccessLog,
            shutdown_timeout=CLOSE_SECONDS / 2,  # for two steps
            keepalive_timeout=KEEP_ALIVE_SECONDS,
        )
        site = await _start(runner, parts.sockets[0], parts.certificate)
        watching = asyncio.create_task(
            parts.certificate.watch() if parts.certificate else stop.wait()
        )
        scheme = "HTTPS" if parts.certificate else "HTTP"
        logger.info("serving %s over %s", settings.namespace, scheme)
        await stop.wait()
        logger.info("a signal has arrived: requests in flight may finish")
        operations.is_closing = True
        watching.cancel()
        await site.stop()  # no further connections
        app[OPEN_STREAMS].close()
        await draining.finish(settings.shutdown_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await runner.cleanup()
    logger.info("the gateway has ended")


async def _start_waking(stack: AsyncExitStack, leases: Leases | None) -> Waking | None:
    """What renews Leases, until the end of the stack."""
    if leases is None:
        return None
    waking = Waking((await stack.enter_async_context(leases)).renew)
    stack.push_async_callback(waking.close)
    return waking


async def _start(
    runner: web.AppRunner, opened: socket.socket, certificate: Certificate | None
) -> web.SockSite:
    await runner.setup()
    site = web.SockSite(runner, opened, ssl_context=certificate.context if certificate else None)
    await site.start()
    return site
