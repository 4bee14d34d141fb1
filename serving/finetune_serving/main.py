"""The server process: completions, probes, and metrics, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import signal
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from finetune_api.uris import S3Uri
from finetune_serving.models.addresses import FixedModels, GatewayModels, ModelSource
from finetune_serving.models.files import ModelFiles
from finetune_serving.models.loaded import LoadedModel, loader
from finetune_serving.models.pool import ModelPool
from finetune_serving.routes.activity import Activity
from finetune_serving.routes.app import SERVER, build_app
from finetune_serving.routes.context import Services
from finetune_serving.routes.status import build_status_app
from finetune_serving.settings import Settings
from finetune_web.app_runner import EnvelopeRunner
from finetune_web.log import add_log_level, configure_log
from finetune_web.sockets import listen

logger = logging.getLogger("finetune_serving")

ALL_ADDRESSES = "*"
CLOSE_SECONDS = 5.0  # for handlers that write their last answer
ABSOLUTE = re.compile(r"(?P<id>.+)=(?P<location>(?:/|s3://).*)", re.DOTALL)  # of --model


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="finetune-serving",
        description="Complete prompts with fine-tuned models, as in OpenAI's API.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="Answer requests until stopped.")
    add = serve.add_argument
    defaults = Settings()
    add(
        "--model",
        action="append",
        default=[],
        metavar="ID=LOCATION",
        help="Serve the model in a folder or at an S3 address under this name. May be repeated.",
    )
    add(
        "--trust-gateway",
        action="store_true",
        help="Accept the addresses of models that the gateway sends. Requires "
        "--gateway-secret-file and --models-below.",
    )
    add(
        "--gateway-secret-file",
        type=Path,
        metavar="FILE",
        help="File with the API key that every request must have.",
    )
    add(
        "--models-below",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="S3 prefix of the models that the gateway may name. May be repeated.",
    )
    add(
        "--cache",
        type=Path,
        default=defaults.cache,
        metavar="FOLDER",
        help="Folder for downloaded models, which only this process uses (default: %(default)s).",
    )
    add(
        "--cache-bytes",
        type=_count,
        metavar="BYTES",
        help="Maximum size of that folder (default: the free space of its disk).",
    )
    add(
        "--keep",
        type=_count,
        default=defaults.keep,
        metavar="COUNT",
        help="Maximum number of models in memory (default: %(default)s).",
    )
    add(
        "--queue",
        type=_count,
        default=defaults.queue,
        metavar="COUNT",
        help="Maximum number of requests that wait for a model (default: %(default)s).",
    )
    add(
        "--hold-seconds",
        type=_seconds,
        default=defaults.hold_seconds,
        metavar="SECONDS",
        help="Time for which a request waits for a model that loads (default: %(default)g).",
    )
    add(
        "--drain-seconds",
        type=_seconds,
        default=defaults.drain_seconds,
        metavar="SECONDS",
        help="Time for running completions after SIGTERM (default: %(default)g).",
    )
    add("--cpu", action="store_true", help="Use the CPU even if there is a GPU.")
    add(
        "--host",
        default="127.0.0.1",
        help="Address to listen on; * means all addresses (default: %(default)s).",
    )
    add("--port", type=int, default=8000, help="Port of the API (default: %(default)s).")
    add(
        "--status-port",
        type=int,
        default=8081,
        help="Port of /healthz, /readyz, and /metrics (default: %(default)s).",
    )
    add_log_level(serve)
    return parser.parse_args(arguments)


def build_settings(options: argparse.Namespace) -> Settings:
    """The settings of the flags. Raises ValueError with the flag."""
    models = {}
    for text in options.model:
        name, location = split_model(text)
        if not name or not location:
            raise ValueError(f"--model {text}: expected ID=FOLDER or ID=s3://bucket/key")
        if name in models:
            raise ValueError(f"--model {text}: the name {name} is there twice")
        if location.startswith("s3://"):
            S3Uri.parse(location)
        models[name] = location
    if options.trust_gateway and not (options.gateway_secret_file and options.models_below):
        raise ValueError("--trust-gateway requires --gateway-secret-file and --models-below")
    if not options.trust_gateway and options.models_below:
        raise ValueError("--models-below requires --trust-gateway")
    if not options.trust_gateway and not models:
        raise ValueError("there is no model: add --model or --trust-gateway")
    return Settings(
        models=models,
        models_below=tuple(S3Uri.parse(text) for text in options.models_below),
        trusts_gateway=options.trust_gateway,
        secret_file=options.gateway_secret_file,
        cache=options.cache,
        cache_bytes=options.cache_bytes,
        keep=options.keep,
        queue=options.queue,
        hold_seconds=options.hold_seconds,
        drain_seconds=options.drain_seconds,
        cpu=options.cpu,
    )


def split_model(text: str) -> tuple[str, str]:
    """The id and the location of ID=LOCATION. A part that is missing is empty.

    The id of a model can contain "=", so the last one in front of an absolute path or of s3:// is
    the separator. For a relative folder, it is the first one.
    """
    if found := ABSOLUTE.fullmatch(text):
        return found["id"], found["location"]
    name, _, location = text.partition("=")
    return name, location


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    configure_log(options.log_level)
    try:
        settings = build_settings(options)
    except ValueError as error:
        print(f"finetune-serving: {error}", file=sys.stderr)
        return 2
    uvloop.run(serve(settings, options.host, options.port, options.status_port))
    return 0


def build_services(settings: Settings, files: ModelFiles) -> Services:
    source: ModelSource = FixedModels(settings.models)
    if settings.trusts_gateway:
        source = GatewayModels(settings.models_below, source)
    pool: ModelPool[LoadedModel] = ModelPool(
        loader(files, cpu=settings.cpu), keep=settings.keep, queue=settings.queue
    )
    return Services(settings, source, pool, Activity())


async def serve(settings: Settings, host: str, port: int, status_port: int) -> None:
    """Run until a signal arrives. Completions that run then have some time to end."""
    from finetune_storage.connect import open_storage

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    files = ModelFiles(settings.cache, settings.cache_bytes, open_storage)
    parts = build_services(settings, files)
    runner = await _start(build_app(parts), host, port)
    status = await _start(build_status_app(parts.activity), host, status_port)
    if settings.secret_file is None and host not in {"127.0.0.1", "::1", "localhost"}:
        logger.warning("every client that reaches %s can use the models", host)
    logger.info("listening on %s, port %d", host, port)
    await stopped.wait()
    logger.info("ending: running completions have %g s", settings.drain_seconds)
    files.is_closing.set()
    await parts.activity.drain(settings.drain_seconds)
    await runner.cleanup()
    await parts.pool.close()
    await status.cleanup()


async def _start(app: web.Application, host: str, port: int) -> web.AppRunner:
    runner = EnvelopeRunner(
        app,
        server=SERVER,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=CLOSE_SECONDS,
    )
    await runner.setup()
    await web.SockSite(runner, listen("" if host == ALL_ADDRESSES else host, port)).start()
    return runner


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a number of at least 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("expected 0 to 3600 seconds")
    return value
