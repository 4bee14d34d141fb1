"""The gateway with a real API server and a real S3 server: lists, events, and uploads."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bench.gateway.processes import Subject, free_port, wait_until_ready
from bench.machine import ROOT, python_path
from bench.table import Line
from devcluster.controlplane import ControlPlane
from finetune_api.uris import S3Uri
from finetune_gateway.wire.ids import new_file_id
from finetune_storage.connect import open_storage
from tests.security.s3 import Tenant, tenants
from tests.support.kubectl import Kubectl

BUCKET, NAMESPACE = "bench", "bench"
JOBS, FILES, MODELS = 1_000, 10_000, 10_000
PAGES, EVENTS, PAGE = 20, 10, 100
WRITERS = 16  # requests at once while objects are made
UPLOAD_BYTES, BLOCK = 150 * 2**20, 2**16
ROW = b'{"prompt": "Where is my parcel? ->", "completion": " It is on its way.\\n"}\n'
API = "/apis/finetune.dev/v1alpha1/namespaces/" + NAMESPACE
SETTLED = {
    "state": "succeeded",
    "fineTunedModel": "ada:ft-bench:tone-2026-11-21-14-05-10",
    "events": [
        {
            "seq": number,
            "at": "2026-11-21T12:00:00Z",
            "reason": "EpochCompleted",
            "key": str(number),
            "message": f"Completed epoch {number}/20 (training loss 1.2345, learning rate 0.0001)",
        }
        for number in range(1, 21)
    ],
}


@dataclass(frozen=True)
class Installed:
    """The running processes, and sessions with them."""

    subject: Subject
    api: aiohttp.ClientSession  # of the API server
    session: aiohttp.ClientSession  # of the gateway

    async def fetch(self, path: str) -> tuple[Any, float]:
        """The answer, and its milliseconds."""
        begin = time.perf_counter()
        async with self.session.get(f"{self.subject.gateway}{path}") as response:
            text = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{path}: {text[:200]!r}")
        return json.loads(text), (time.perf_counter() - begin) * 1000

    async def pages(self, path: str, limit: int) -> tuple[int, list[float]]:
        """The number of objects in all pages, and the milliseconds of each page."""
        count, times, after = 0, [], ""
        while True:
            answer, taken = await self.fetch(f"{path}?limit={limit}{after}")
            times.append(taken)
            count += len(answer["data"])
            if not answer["has_more"]:
                return count, times
            after = f"&after={answer['last_id']}"


def measure_installed() -> list[Line]:
    """All lines of this part."""
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as name:
        folder = Path(name)
        crds = [ROOT / "crds" / f"{plural}.yaml" for plural in ("finetunes", "models")]
        with (
            ControlPlane(crds=crds) as plane,
            tenants(folder, BUCKET) as (tenant,),
            _gateway(plane, tenant, folder) as (subject, token),
        ):
            return asyncio.run(_measure(plane, tenant, subject, token))


async def _measure(plane: ControlPlane, tenant: Tenant, subject: Subject, token: str) -> list[Line]:
    async with _sessions(plane, token) as (api, session):
        installed = Installed(subject, api, session)
        print(f"creating {JOBS:,} FineTunes", flush=True)
        await _create(installed, "finetunes", [_finetune(number) for number in range(JOBS)])
        lines = [*await _jobs(installed), *await _events(installed)]
        print(f"creating {MODELS:,} Models and {FILES:,} files", flush=True)
        await _create(installed, "models", [_model(number) for number in range(MODELS)])
        await asyncio.to_thread(_write_files, tenant)
        lines += [*await _models(installed), *await _files(installed)]
        return [*lines, *await _upload(installed)]


async def _jobs(installed: Installed) -> list[Line]:
    times = [(await installed.fetch("/fine_tuning/jobs?limit=20"))[1] for _ in range(PAGES)]
    count, _ = await installed.pages("/fine_tuning/jobs", PAGE)
    _expect(count, JOBS, "jobs")
    return [Line("lists", f"a page of 20 of {JOBS:,} jobs", times, "ms", max(times), "<= 500")]


async def _events(installed: Installed) -> list[Line]:
    """From the write of a status to the arrival of its event in a stream."""
    await _create(installed, "finetunes", [_finetune(JOBS)], settles=False)
    name, times = f"tone-{JOBS}", []
    url = f"{installed.subject.gateway}/fine-tunes/ft-{name}/events?stream=true"
    async with installed.session.get(url) as stream:
        for number in range(1, EVENTS + 1):
            events = SETTLED["events"][:number]  # type: ignore[index]
            begin = time.perf_counter()
            await _patch(installed, name, {"state": "running", "events": events})
            while f"epoch {number}/".encode() not in await stream.content.readline():
                pass
            times.append((time.perf_counter() - begin) * 1000)
    return [Line("events", "status write to event in a stream", times, "ms", max(times), "<= 1000")]


async def _models(installed: Installed) -> list[Line]:
    answer, taken = await installed.fetch("/models")
    _expect(len(answer["data"]), MODELS + 1, "models")  # and the catalog
    return [Line("lists", f"{MODELS:,} Models", [taken], "ms")]


async def _files(installed: Installed) -> list[Line]:
    count, times = await installed.pages("/files", FILES // 10)
    _expect(count, FILES, "files")
    return [Line("lists", f"a page of {FILES // 10:,} of {FILES:,} files", times, "ms")]


async def _upload(installed: Installed) -> list[Line]:
    """The memory that an upload of the maximum size needs in addition."""
    installed.subject.reset_peak()
    before = installed.subject.resident_mb()
    block = ROW * (BLOCK // len(ROW))

    async def content() -> AsyncIterator[bytes]:
        for _ in range(UPLOAD_BYTES // len(block)):
            yield block

    form = aiohttp.FormData()
    form.add_field("purpose", "fine-tune")
    form.add_field("file", content(), filename="large.jsonl")
    begin = time.perf_counter()
    url = f"{installed.subject.gateway}/files"
    async with installed.session.post(url, data=form) as response:
        text = await response.read()
        if response.status != 200:
            raise RuntimeError(f"upload: {text[:200]!r}")
    seconds = time.perf_counter() - begin
    added = (installed.subject.peak_mb() - before) * 1e6 / 2**20
    return [
        Line("upload", "additional memory for 150 MiB", [added], "MiB", added, "<= 64"),
        Line("upload", "150 MiB", [150 / seconds], "MiB/s"),
    ]


def _expect(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise RuntimeError(f"the lists have {found:,} {what} instead of {wanted:,}")


# --- objects -------------------------------------------------------------------------------------


def _finetune(number: int) -> dict[str, Any]:
    spec = {"model": "ada", "trainingFile": f"s3://{BUCKET}/train-{number}.jsonl"}
    return _object("FineTune", f"tone-{number}", spec)


def _model(number: int) -> dict[str, Any]:
    spec = {
        "id": f"ada:ft-bench:tone-{number}",
        "uri": f"s3://{BUCKET}/out/{NAMESPACE}/tone-{number}-00000000/model",
        "base": "ada",
        "pretrainingLearningRate": 0.001,
        "contextLength": 256,
    }
    return _object("Model", f"ada-ft-bench-tone-{number}", spec)


def _object(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {
        "apiVersion": "finetune.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


async def _create(
    installed: Installed, plural: str, objects: Sequence[dict[str, Any]], *, settles: bool = True
) -> None:
    """settles: whether FineTunes get a status with events."""
    places = asyncio.Semaphore(WRITERS)

    async def create(body: dict[str, Any]) -> None:
        async with places:
            async with installed.api.post(f"{API}/{plural}", json=body) as response:
                response.raise_for_status()
            if settles and plural == "finetunes":
                await _patch(installed, body["metadata"]["name"], SETTLED)

    await asyncio.gather(*(create(body) for body in objects))


async def _patch(installed: Installed, name: str, status: dict[str, Any]) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    async with installed.api.patch(
        f"{API}/finetunes/{name}/status", data=json.dumps({"status": status}), headers=headers
    ) as response:
        response.raise_for_status()


def _write_files(tenant: Tenant) -> None:
    """Uploaded files, as the gateway stores them."""
    from concurrent.futures import ThreadPoolExecutor

    os.environ.update(tenant.environment)
    storage, at = open_storage(), datetime.now(UTC) - timedelta(days=1)
    root = S3Uri(BUCKET, f"gateway/{NAMESPACE}/files")

    def write(number: int) -> None:
        file_id = new_file_id(at + timedelta(milliseconds=number))
        storage.write_bytes(root.child(file_id, "fine-tune", "train.jsonl"), ROW)

    with ThreadPoolExecutor(WRITERS) as threads:
        for _ in threads.map(write, range(FILES)):
            pass


# --- processes -----------------------------------------------------------------------------------


@contextmanager
def _gateway(plane: ControlPlane, tenant: Tenant, folder: Path) -> Iterator[tuple[Subject, str]]:
    """The gateway, and the token of a user who may do everything."""
    kubectl = Kubectl(str(plane.kubectl), str(plane.kubeconfig), NAMESPACE)
    kubectl("create", "namespace", NAMESPACE)
    kubectl("create", "serviceaccount", "bench")
    subject = f"--serviceaccount={NAMESPACE}:bench"
    kubectl("create", "clusterrolebinding", "bench", "--clusterrole=cluster-admin", subject)
    token = kubectl("create", "token", "bench", "--duration=2h").strip()
    settings = {
        "namespace": NAMESPACE,
        "output": f"s3://{BUCKET}/out",
        "files": f"s3://{BUCKET}/gateway",
        "filesQuotaBytes": 0,
        "models": [
            {
                "name": "ada",
                "uri": f"s3://{BUCKET}/ada",
                "pretrainingLearningRate": 0.001,
                "contextLength": 256,
            }
        ],
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    port, probes = free_port(), free_port()
    command = [sys.executable, "-m", "finetune_gateway", "run", "--log-level", "WARNING"]
    command += ["--settings", str(folder / "settings.yaml"), "--kubeconfig", str(plane.kubeconfig)]
    command += ["--address", "127.0.0.1", "--port", str(port), "--operations-port", str(probes)]
    process = subprocess.Popen(
        command, env={**os.environ, **tenant.environment, "PYTHONPATH": python_path()}
    )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{probes}/readyz")
        yield Subject(f"http://127.0.0.1:{port}/v1", "", process.pid), token
    finally:
        process.terminate()
        process.wait(60)


@asynccontextmanager
async def _sessions(
    plane: ControlPlane, token: str
) -> AsyncIterator[tuple[aiohttp.ClientSession, aiohttp.ClientSession]]:
    import ssl

    headers = {"Authorization": f"Bearer {token}"}
    context = ssl.create_default_context(cafile=str(plane.authority))
    async with (
        aiohttp.ClientSession(
            plane.url, headers=headers, connector=aiohttp.TCPConnector(ssl=context)
        ) as api,
        aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(600)) as session,
    ):
        yield api, session
