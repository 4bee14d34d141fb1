"""`python -m bench.operator.script_baseline SETTINGS COUNT` creates only the operator's objects.

The script creates the prepare Job, train Job, Service, and Model from the operator's manifests,
with the same number of workers. A watch shows it when the previous pod has ended. It writes no
status and no Events, reads nothing again, and cannot resume after a restart.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from bench.machine import report
from bench.operator.objects import a_spec
from finetune_api import names
from finetune_api.assignments import with_prepared
from finetune_api.finetune import FineTune
from finetune_api.wire import JsonObject
from finetune_operator.build.model_resource import build_model
from finetune_operator.build.prepare_job import build_prepare_job
from finetune_operator.build.train_job import build_service, build_train_job
from finetune_operator.core.resolution import resolve
from finetune_operator.handlers.reconcile import WORKERS
from finetune_operator.kube import paths
from finetune_operator.kube.client import Client
from finetune_operator.settings import Settings
from finetune_web.settings_file import load_settings
from tests.support.objects import prepared, trained


class WatchingClient(Client):
    """A client with watches."""

    async def watch(self, path: str, **params: str) -> AsyncIterator[JsonObject]:
        assert self._session is not None
        async with self._session.get(
            self._server + path,
            params={"watch": "1", **params},
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=2**20,
        ) as answer:
            async for line in answer.content:
                yield json.loads(line)


class Script:
    """`count` fine-tunes in one namespace."""

    def __init__(self, client: WatchingClient, settings: Settings, count: int) -> None:
        self._client = client
        self._settings = settings
        self._namespace = settings.namespace
        self._turns = asyncio.Semaphore(WORKERS)
        self._finetunes = [_finetune(settings.namespace, number) for number in range(count)]
        # (UID, component) -> set once rank 0's pod has ended
        self._ended = {
            (finetune.metadata.uid, component): asyncio.Event()
            for finetune in self._finetunes
            for component in (names.COMPONENT_PREPARE, names.COMPONENT_TRAIN)
        }

    async def run(self) -> float:
        """Create everything, and return the seconds until the last Model."""
        watching = asyncio.create_task(self._watch())
        begin = time.perf_counter()
        await asyncio.gather(*map(self._follow, self._finetunes))
        seconds = time.perf_counter() - begin
        watching.cancel()
        return seconds

    async def _watch(self) -> None:
        path = paths.core(self._namespace, "pods")
        async for event in self._client.watch(path, labelSelector=names.LABEL_UID):
            pod = event["object"]
            labels = pod["metadata"]["labels"]
            is_first = labels.get("batch.kubernetes.io/job-completion-index", "0") == "0"
            if is_first and pod["status"].get("phase") == "Succeeded":
                self._ended[labels[names.LABEL_UID], labels[names.LABEL_COMPONENT]].set()

    async def _follow(self, finetune: FineTune) -> None:
        resolved: Any = resolve(finetune, (), self._settings)
        uid = finetune.metadata.uid
        await self._create(build_prepare_job(finetune, resolved, self._settings))
        await self._ended[uid, names.COMPONENT_PREPARE].wait()
        found: Any = prepared().prepared
        resolved = with_prepared(resolved, found)
        job = await self._create(build_train_job(finetune, resolved, self._settings, 1))
        await self._create(build_service(finetune, 1, job["metadata"]["uid"]))
        await self._ended[uid, names.COMPONENT_TRAIN].wait()
        result: Any = trained().trained
        name = f"{result.fine_tuned_model}-{finetune.metadata.name}"
        await self._create(build_model(finetune, resolved, result.replace(fine_tuned_model=name)))

    async def _create(self, manifest: JsonObject) -> JsonObject:
        if manifest["kind"] == "Job":
            del manifest["metadata"]["ownerReferences"]  # there is no FineTune
        async with self._turns:
            return await self._client.create(
                paths.of_kind(manifest["kind"], self._namespace), manifest
            )


def _finetune(namespace: str, number: int) -> FineTune:
    meta = {"name": f"script-{number}", "namespace": namespace, "uid": f"{number:08d}-script"}
    return FineTune.parse({"metadata": {**meta, "generation": 1}, "spec": a_spec()})


async def main(settings: Path, count: int) -> None:
    client = WatchingClient()
    async with client:
        seconds = await Script(client, load_settings(settings, Settings), count).run()
    report(seconds=seconds, pid=os.getpid())


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
