"""A real server of completions in this process, with its event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from aiohttp import web
from openai import OpenAI

from finetune_serving.main import build_services, listen
from finetune_serving.models.files import ModelFiles
from finetune_serving.routes.app import build_app
from finetune_serving.routes.context import Services
from finetune_serving.settings import Settings
from finetune_storage.connect import open_storage


class Server:
    """A server that listens on `port`."""

    def __init__(self, parts: Services, port: int, loop: asyncio.AbstractEventLoop) -> None:
        self.parts = parts
        self.port = port
        self._loop = loop

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: str = "none", **settings: Any) -> OpenAI:
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=120, **settings)

    def post(
        self, body: Any, path: str = "completions", **headers: str
    ) -> tuple[int, dict[str, Any], Message]:
        """The status, the JSON, and the headers of an answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"{self.url}/{path}", data, given)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer), answer.headers
        except HTTPError as error:
            return error.code, json.load(error), error.headers

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the loop of the server."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


@contextmanager
def serving(
    settings: Settings, change: Callable[[Services], object] = lambda parts: None
) -> Iterator[Server]:
    """A server until the end of the block. change: of its parts, before it listens."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def call(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    files = ModelFiles(settings.cache, settings.cache_bytes, open_storage)
    parts = build_services(settings, files)
    change(parts)

    async def start() -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(
            build_app(parts), access_log=None, handler_cancellation=True, shutdown_timeout=5
        )
        await runner.setup()
        socket = listen("127.0.0.1", 0)
        await web.SockSite(runner, socket).start()
        return runner, socket.getsockname()[1]

    runner, port = call(start())
    try:
        yield Server(parts, port, loop)
    finally:
        call(parts.activity.drain(5))
        call(runner.cleanup())
        call(parts.pool.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def tiny_settings(folder: Path, **models: Path) -> Settings:
    return Settings(
        models={name: str(path) for name, path in models.items()}, cache=folder / "cache", cpu=True
    )
