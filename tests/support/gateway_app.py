"""The gateway's endpoints over a cluster and files in memory, for aiohttp's test client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from finetune_api.finetune import FineTune
from finetune_api.layout import RunLayout
from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_gateway.backends.holding import Backends
from finetune_gateway.kube.caller import Caller
from finetune_gateway.problems import unauthenticated
from finetune_gateway.routes import fine_tunes, jobs, models
from finetune_gateway.routes.app import build_app
from finetune_gateway.routes.context import Services
from finetune_gateway.settings import Settings
from finetune_gateway.wire.file_objects import StoredFile
from finetune_gateway.wire.ids import Artifact, new_file_id
from tests.support.gateway_cluster import MemoryCluster

KEYS = {"Bearer sk-ft-anna": "anna", "Bearer sk-ft-bert": "bert"}
AS_ANNA = {"Authorization": "Bearer sk-ft-anna"}
AS_BERT = {"Authorization": "Bearer sk-ft-bert"}
OUTPUT = "s3://bucket/out"
UPLOADED_AT = datetime(2026, 11, 21, 11, 0, 0, tzinfo=UTC)


def gateway_settings(**changes: Any) -> Settings:
    """Settings of the namespace ml, with the base models ada and curie."""
    return Settings.model_validate(
        {
            "namespace": "ml",
            "organization": "acme",
            "output": OUTPUT,
            "files": "s3://bucket/gateway",
            "cancelSeconds": 0.2,
            "models": [
                {
                    "name": name,
                    "uri": f"s3://bucket/models/{name}",
                    "pretrainingLearningRate": 0.001,
                    "contextLength": 256,
                }
                for name in ("ada", "curie")
            ],
        }
        | changes
    )


class MemoryFiles:
    """Uploaded files, and results.csv of FineTunes, behind the gateway's `Files` protocol."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stored: list[StoredFile] = []
        self.results: dict[str, bytes] = {}  # by the name of the FineTune
        self.failure: Exception | None = None  # of a store that does not answer

    def upload(self, name: str, size: int = 1000, purpose: str = "fine-tune") -> StoredFile:
        file_id = new_file_id(UPLOADED_AT)
        uri = self._settings.files_root.child(file_id, purpose, name)
        file = StoredFile(file_id, purpose, name, size, UPLOADED_AT, uri)
        self.stored.append(file)
        return file

    async def list(self) -> list[StoredFile]:
        self._answer()
        return list(self.stored)

    async def find(self, file_id: str) -> StoredFile | None:
        self._answer()
        return next((file for file in self.stored if file.id == file_id), None)

    async def find_by_address(self, uri: S3Uri) -> StoredFile | None:
        self._answer()
        return next((file for file in self.stored if file.uri == uri), None)

    async def read_results(self, finetune: FineTune) -> bytes | None:
        self._answer()
        return self.results.get(finetune.metadata.name)

    def artifact_uri(self, artifact: Artifact, finetune: FineTune) -> S3Uri | None:
        meta = finetune.metadata
        output = finetune.spec.output or OUTPUT
        if output != OUTPUT:
            return None
        layout = RunLayout.of(output, meta.namespace, meta.name, meta.uid)
        return layout.results if artifact.kind == "results" else layout.report

    def _answer(self) -> None:
        if self.failure is not None:
            raise self.failure


def gateway_services(settings: Settings | None = None, **parts: Any) -> Services:
    """The parts of a gateway. parts: in place of those in memory."""
    settings = settings or gateway_settings()
    return Services(
        settings,
        parts.get("cluster") or MemoryCluster(settings.namespace),
        parts.get("files") or MemoryFiles(settings),
        parts.get("backends") or Backends(settings),
    )


def gateway_app(parts: Services, *routes: Iterable[web.RouteDef]) -> web.Application:
    """An application that knows the keys of anna and bert, and takes a JWT as it is."""

    def authenticate(header: str) -> Caller:
        if header in KEYS:
            account = KEYS[header]
            user = f"system:serviceaccount:{parts.settings.namespace}:{account}"
            return Caller({"Impersonate-User": user}, account)
        if header.startswith("Bearer eyJ"):
            return Caller({"Authorization": header})
        raise unauthenticated("You did not provide an API key.", "missing_api_key")

    return build_app(parts, [route for group in routes for route in group], authenticate)


class Gateway:
    """The endpoints of FineTunes and Models, and a client of them."""

    def __init__(self, parts: Services, client: TestClient[Any, Any]) -> None:
        self.client = client
        self.settings = parts.settings
        assert isinstance(parts.cluster, MemoryCluster)
        assert isinstance(parts.files, MemoryFiles)
        self.cluster = parts.cluster
        self.files = parts.files

    async def ask(
        self, method: str, path: str, body: Any = None, status: int = 200, **headers: str
    ) -> JsonObject:
        """The answer, which must have this status. An error: what is in its envelope."""
        sent = {**AS_ANNA, **{key.replace("_", "-"): text for key, text in headers.items()}}
        url = URL(path, encoded=True)
        async with self.client.request(method, url, json=body, headers=sent) as response:
            found: JsonObject = await response.json()
            assert response.status == status, found
            assert response.headers["OpenAI-Organization"] == self.settings.shown_organization
            assert response.headers["x-request-id"].startswith("req-")
            self.headers = response.headers
        if status < 400:
            return found
        assert found.keys() == {"error"}
        error: JsonObject = found["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error

    async def get(self, path: str, status: int = 200, **headers: str) -> JsonObject:
        return await self.ask("GET", path, status=status, **headers)

    async def post(
        self, path: str, body: Any = None, status: int = 200, **headers: str
    ) -> JsonObject:
        return await self.ask("POST", path, body, status, **headers)

    async def delete(self, path: str, status: int = 200, **headers: str) -> JsonObject:
        return await self.ask("DELETE", path, status=status, **headers)


@asynccontextmanager
async def running_gateway(**settings: Any) -> AsyncIterator[Gateway]:
    """A gateway with these settings, for the block."""
    parts = gateway_services(gateway_settings(**settings))
    app = gateway_app(parts, fine_tunes.ROUTES, jobs.ROUTES, models.ROUTES)
    async with asyncio.timeout(60), TestClient(TestServer(app)) as client:
        yield Gateway(parts, client)
