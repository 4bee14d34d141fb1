"""The gateway's endpoints of files and uploads, in a thread, over a real store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

import openai
import uvloop
from aiohttp import web

from finetune_api.uris import S3Uri
from finetune_gateway.backends.holding import Backends
from finetune_gateway.files.bucket_files import BucketFiles
from finetune_gateway.files.workers import Workers
from finetune_gateway.routes import files, uploads
from finetune_gateway.routes.context import Services
from finetune_storage.multipart import UnfinishedUploads
from finetune_storage.s3 import Storage
from tests.support.gateway_app import gateway_app, gateway_settings
from tests.support.gateway_cluster import MemoryCluster

T = TypeVar("T")
SECONDS = 60.0
KEY = "sk-ft-anna"
HEADERS = {"Authorization": f"Bearer {KEY}"}
ROW = b'{"prompt": "a", "completion": "b"}\n'


class FilesServer:
    """The running endpoints, and what they work with."""

    def __init__(self, storage: Storage, bucket: str, **settings: Any) -> None:
        """settings: of the gateway, in place of the usual ones."""
        self.storage = storage
        self.bucket = bucket
        addresses = {"files": f"s3://{bucket}/gateway", "output": f"s3://{bucket}/out"}
        self.settings = gateway_settings(**addresses | settings)
        self.workers = Workers()
        self.files = BucketFiles(storage, self.workers, self.settings)
        self.cluster = MemoryCluster("ml")
        self.url = ""
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()
        self.workers.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def client(self, key: str = KEY, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, **options)

    @property
    def keys(self) -> list[str]:
        """The keys of all objects in the bucket."""
        return [entry.key for entry in self.storage.list(S3Uri(self.bucket, ""))]

    @property
    def unfinished(self) -> list[str]:
        """The keys of the unfinished uploads in parts."""
        found = UnfinishedUploads(self.storage._client, S3Uri(self.bucket, "")).find()
        return [upload.key for upload in found]

    async def _start(self) -> None:
        """Without the seconds for which aiohttp reads on after an answer, which hide errors."""
        parts = Services(self.settings, self.cluster, self.files, Backends(self.settings))
        app = gateway_app(parts, files.ROUTES, uploads.ROUTES)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, lingering_time=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
