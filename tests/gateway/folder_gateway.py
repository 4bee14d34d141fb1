"""A whole gateway over folders, in a thread: every route, and real files and objects."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from finetune_gateway.backends.holding import Backends
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.files.workers import Workers
from finetune_gateway.main import ROUTES
from finetune_gateway.routes.app import SERVER, build_app
from finetune_gateway.routes.context import Services
from finetune_local.access import OwnKey
from finetune_local.folder_cluster import FolderCluster
from finetune_local.objects import Objects
from finetune_storage.local import LocalStorage
from finetune_web.app_runner import EnvelopeRunner
from finetune_web.sockets import listen
from tests.support.gateway_app import gateway_settings

KEY = "sk-ft-fuzz"
SECONDS = 30


def build(folder: Path, workers: Workers) -> web.Application:
    """The application. Its objects have no operator, so that FineTunes stay as they are created."""
    bucket = "s3://finetune-local"
    settings = gateway_settings(
        namespace="local", output=bucket, files=f"{bucket}/uploads", deletesFiles=True
    )
    objects = Objects(folder / "objects")
    parts = Services(
        settings,
        FolderCluster(objects, "local", 0),
        BucketFiles(LocalStorage(folder), workers, settings),
        Backends(settings),
    )
    for name in ("ada:ft-acme:one", "ada:ft-acme:two"):
        spec = {
            "id": name,
            "uri": f"{bucket}/local/{name[-3:]}-00000000/model",
            "base": "ada",
            "pretrainingLearningRate": 0.001,
            "contextLength": 64,
        }
        body = {"metadata": {"name": name.replace(":", "-")}, "spec": spec}
        objects.add("models", body)
    return build_app(parts, ROUTES, OwnKey(KEY))


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of the gateway, as long as the block runs."""
    opened = listen("127.0.0.1", 0)
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        workers = Workers()
        runner = EnvelopeRunner(build(folder, workers), server=SERVER, shutdown_timeout=1)
        await runner.setup()
        await web.SockSite(runner, opened).start()
        started.set()
        await stop.wait()
        await runner.cleanup()
        workers.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(SECONDS)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(SECONDS)
        loop.close()
