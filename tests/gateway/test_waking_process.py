"""The process of the gateway wakes a model with its own token, and reads it with the caller's."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from finetune_api.names import ENV_LOCAL_ROOT
from tests.gateway.api_server import ApiServer, serve
from tests.gateway.completion_gateway import TONE
from tests.gateway.completion_server import until
from tests.support.gateway_app import OUTPUT

pytestmark = pytest.mark.slow

CALLER = "eyJ0.caller.c2ln"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/ml/leases"
MODEL = {
    "metadata": {"name": "tone", "namespace": "ml", "uid": "0a1b2c3d-0000-4000-8000-000000000000"},
    "spec": {
        "id": TONE,
        "uri": f"{OUTPUT}/ml/tone-0a1b2c3d/model",
        "base": "curie",
        "pretrainingLearningRate": 0.001,
        "contextLength": 64,
        "serve": {},
    },
}


async def answer(request: web.Request) -> web.StreamResponse:
    """The Model, and an empty Lease."""
    return web.json_response({} if request.path.startswith(LEASES) else MODEL)


def command(folder: Path, server: ApiServer, port: int) -> list[str]:
    """Of a gateway in front of this API server."""
    settings: dict[str, Any] = {"namespace": "ml", "files": "s3://finetune-local/gateway"}
    settings |= {"servesModels": True, "holdSeconds": 60}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "c", "user": {"token": "own"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    options = ["--settings", str(folder / "settings.yaml"), "--address", "127.0.0.1"]
    options += ["--kubeconfig", str(folder / "kubeconfig")]
    options += ["--port", str(port), "--operations-port", "0"]
    return [sys.executable, "-m", "finetune_gateway", "run", *options]


@asynccontextmanager
async def running(folder: Path, server: ApiServer) -> AsyncIterator[tuple[str, Any]]:
    """The URL and the process of a gateway that answers."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment[ENV_LOCAL_ROOT] = str(folder)
    process = await asyncio.create_subprocess_exec(*command(folder, server, port), env=environment)
    try:
        await until(lambda: answers(port), 60)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def answers(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def test_a_request_renews_the_lease_as_the_gateway_and_the_process_ends(
    tmp_path: Path,
) -> None:
    async with (
        serve(answer) as server,
        running(tmp_path, server) as (url, process),
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {CALLER}"}) as client,
    ):
        body = {"model": TONE, "prompt": "a"}
        asked = asyncio.ensure_future(client.post(f"{url}/completions", json=body))
        await until(lambda: len(server.requests) >= 2, 60)
        process.send_signal(signal.SIGTERM)
        async with await asked as response:
            assert response.status == 503
            assert "The gateway restarts" in await response.text()
        assert await asyncio.wait_for(process.wait(), 60) == 0
        read, renewed = server.requests[:2]
        assert (read.method, read.headers["Authorization"]) == ("GET", f"Bearer {CALLER}")
        assert renewed.method == "PATCH"
        assert renewed.path == f"{LEASES}/mdl-tone-0a1b2c3d-serve"
        assert renewed.headers["Authorization"] == "Bearer own"
        assert (await renewed.json())["spec"]["holderIdentity"] == "finetune-gateway"
