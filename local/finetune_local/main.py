"""The process: the gateway on the loopback interface, the operator, and the completion server."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiohttp import web

from finetune_api.finetune_status import EventEntry
from finetune_api.names import ENV_LOCAL_ROOT
from finetune_gateway.backends.holding import Backends
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.files.workers import Workers
from finetune_gateway.main import ROUTES
from finetune_gateway.routes.app import SERVER, build_app
from finetune_gateway.routes.context import OPEN_STREAMS, Services
from finetune_local.access import OwnKey, load_key, refuse_pages
from finetune_local.completions import Completions
from finetune_local.folder_cluster import FolderCluster
from finetune_local.jobs import Jobs
from finetune_local.machine import NAMESPACE, Machine, gateway_settings, operator_settings
from finetune_local.objects import Objects
from finetune_local.operating import Operator
from finetune_local.pods import LOCALHOST
from finetune_storage.connect import open_storage
from finetune_web.app_runner import EnvelopeRunner
from finetune_web.sockets import listen

CLOSE_SECONDS = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reports:
    """What the program reports to its user. Every function is called in the event loop."""

    ready: Callable[[str, str], None]  # the URL and the key
    event: Callable[[str, EventEntry], None]  # the name of a FineTune, and its new Event
    stopping: Callable[[], None]


class InUseError(Exception):
    """Another process serves the folder."""


def serve(machine: Machine, reports: Reports) -> None:
    """Serve until Ctrl-C. A second Ctrl-C does not wait for checkpoints.

    Raises InUseError, OSError if the port or the folder cannot be used, and StorageError.
    """
    machine.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ[ENV_LOCAL_ROOT] = str(machine.root)
    with _locked(machine.state / "lock"):
        uvloop.run(_serve(machine, reports))


async def _serve(machine: Machine, reports: Reports) -> None:
    opened = listen(LOCALHOST, machine.port)
    stopping = _stop_signals()
    key = load_key(machine.state / "key")
    objects = Objects(machine.state)
    jobs = Jobs(objects, machine.root, machine.state / "logs")
    completions = Completions(machine)
    settings = gateway_settings(machine, completions.server)
    async with AsyncExitStack() as stack:
        workers = Workers()
        stack.callback(workers.close)
        app = build_app(
            Services(
                settings,
                FolderCluster(objects, NAMESPACE, machine.gpus),
                BucketFiles(open_storage(), workers, settings),
                Backends(settings, api_server=""),
            ),
            ROUTES,
            OwnKey(key),
        )
        app.middlewares.insert(1, refuse_pages)  # inside of the envelope, before the key
        runner = EnvelopeRunner(app, server=SERVER, access_log=None, shutdown_timeout=CLOSE_SECONDS)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, opened).start()
        jobs.restore()
        operator = Operator(objects, jobs, operator_settings(machine), reports.event)
        tasks = [asyncio.create_task(work) for work in (operator.run(), completions.run())]
        reports.ready(f"http://{LOCALHOST}:{opened.getsockname()[1]}/v1", key)
        await stopping[0].wait()
        reports.stopping()
        app[OPEN_STREAMS].close()
        ending = asyncio.create_task(_end(tasks, jobs))
        forced = asyncio.create_task(stopping[1].wait())
        await asyncio.wait([ending, forced], return_when=asyncio.FIRST_COMPLETED)
        forced.cancel()
        if not ending.done():  # its processes end with this one
            os._exit(128 + signal.SIGINT)


async def _end(tasks: list[asyncio.Task[None]], jobs: Jobs) -> None:
    """No further decisions; then the pods end, and a training saves a checkpoint."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await jobs.close()


def _stop_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first and by the second signal."""
    first, second = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return first, second


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of the folder. Raises InUseError if another process has it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InUseError(str(path.parent.parent)) from error
        yield
