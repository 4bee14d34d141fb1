"""A gateway with a Model and callers, in front of a real server of completions."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from finetune_api.model_names import resource_name
from finetune_api.wire import JsonObject
from finetune_gateway.backends.holding import Backends
from finetune_gateway.routes.completions.endpoints import ROUTES
from finetune_gateway.routes.context import OPEN_STREAMS
from tests.gateway.completion_server import CompletionServer, serving
from tests.support.gateway_app import AS_ANNA, gateway_app, gateway_services, gateway_settings
from tests.support.gateway_cluster import MemoryCluster

TONE = "curie:ft-acme:support-tone-2026-11-21-14-05-10"


async def add_model(cluster: MemoryCluster, model_id: str, **spec: Any) -> None:
    """Add a Model. spec: further fields."""
    usual = {"base": "curie", "pretrainingLearningRate": 0.001, "contextLength": 256}
    uri = "s3://bucket/out/ml/tone-0a1b2c3d/model"
    await cluster.add(
        "models", resource_name(model_id), {"id": model_id, "uri": uri} | usual | spec
    )


class Names(AbstractResolver):
    """Addresses of names, which a test can change. It counts the resolutions."""

    def __init__(self, addresses: dict[str, list[str]]) -> None:
        self.addresses = addresses
        self.resolutions: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.resolutions.append(host)
        if host not in self.addresses:
            raise OSError(f"no address of {host}")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=10 if ":" in address else 2,
                proto=0,
                flags=0,
            )
            for address in self.addresses[host]
        ]

    async def close(self) -> None:
        pass


@dataclass
class Gateway:
    """A running gateway."""

    url: str  # ends in /v1
    app: web.Application
    cluster: MemoryCluster
    backends: Backends
    client: aiohttp.ClientSession
    headers: dict[str, str] = field(default_factory=lambda: AS_ANNA)

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        """The status and the JSON of the answer."""
        async with self.client.post(
            f"{self.url}/{path}", json=body, headers={**self.headers, **headers}
        ) as response:
            return response.status, await response.json()

    async def events(self, path: str, body: Any) -> list[str]:
        """The lines of a stream that are not empty."""
        async with self.client.post(
            f"{self.url}/{path}", json=body, headers=self.headers
        ) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            text = await response.text()
        return [line for line in text.splitlines() if line]

    def shut_down(self) -> None:
        """Ask the streams and the requests that wait to end, as the process does at its end."""
        self.app[OPEN_STREAMS].close()


@asynccontextmanager
async def gateway(
    *backends: JsonObject,
    resolver: AbstractResolver | None = None,
    api_server: str = "",
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A gateway with these backends. options: of `Backends`."""
    parsed = gateway_settings(**({"backends": list(backends), "holdSeconds": 1} | settings))
    found = Backends(parsed, api_server=api_server, resolver=resolver, **(options or {}))
    cluster = MemoryCluster()
    await add_model(cluster, TONE)
    app = gateway_app(gateway_services(parsed, cluster=cluster, backends=found), ROUTES)
    async with serving(app) as port, aiohttp.ClientSession() as client:
        yield Gateway(f"http://127.0.0.1:{port}/v1", app, cluster, found, client)


@asynccontextmanager
async def gateway_to(server: CompletionServer, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway whose backend for curie is the server, under the name of each fine-tuned model."""
    server.models |= {TONE, "curie"}
    backend = options.pop("backend", {})
    async with (
        serving(server.app()) as port,
        gateway(
            {"base": "curie", "url": f"http://127.0.0.1:{port}/v1", **backend}, **options
        ) as it,
    ):
        yield it


async def free_port() -> int:
    """A port on which nothing listens."""
    async with serving(web.Application()) as port:
        return port


def own_address() -> str:
    """An address of this machine that is not loopback, as a pod would have it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("198.51.100.1", 9))  # a datagram socket sends nothing
        except OSError:
            pytest.skip("this machine has only a loopback address")
        return str(one.getsockname()[0])
