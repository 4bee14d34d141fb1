"""A model in a bucket, published as the trainer does it, and the task that downloads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.errors import FailureError
from finetune_api.outcome import Failure
from finetune_api.tasks import FetchTask
from finetune_api.uris import S3Uri
from finetune_serving.fetch import fetch_model
from finetune_storage.local import LocalStorage
from finetune_storage.progress import ProgressCallback
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry
from tests.data.builders import safetensors_bytes

Files = dict[str, bytes]
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = {"weight_map": {"first": SHARDS[0], "second": SHARDS[1]}}
FILES: Files = {
    "config.json": b'{"model_type": "llama"}',
    SHARDS[0]: safetensors_bytes(1000),
    SHARDS[1]: safetensors_bytes(2000),
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "additional_chat_templates/tool_use.jinja": b"{{ tools }}",
    "adapter/adapter_model.safetensors": b"not downloaded",
}
SIZE = len(FILES[SHARDS[0]])
SERVED = {path: data for path, data in FILES.items() if not path.startswith("adapter/")}
RESTORE = "restore the files, or train the model again"
CHECK = "check the address, or train the model again"
SPACE = (
    "set ephemeral-storage in the resources of the serving runtime (chart value serving.runtimes), "
    "so that its pods run on nodes with enough disk"
)


@dataclass(frozen=True)
class Published:
    """A model in a bucket, and the task that downloads it."""

    storage: Storage
    uri: S3Uri
    folder: Path
    task: FetchTask

    def write(self, path: str, data: bytes) -> None:
        self.storage.write_bytes(self.uri.child(path), data)

    def failure(self) -> Failure:
        with pytest.raises(FailureError) as caught:
            fetch_model(self.task, self.storage)
        return caught.value.failure

    def sentence(self, text: str) -> str:
        return text.format(uri=self.uri, endpoint=self.storage.endpoint, folder=self.folder)


def entry(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def manifest_of(files: Mapping[str, bytes], *more: Mapping[str, Any]) -> bytes:
    """more: entries in addition to those of the files."""
    listed = [entry(path, data) for path, data in files.items()]
    return json.dumps({"kind": "model", "files": [*listed, *more]}).encode()


def publish(
    storage: Storage,
    uri: S3Uri,
    folder: Path,
    files: Mapping[str, bytes] = FILES,
    *more: Mapping[str, Any],
) -> Published:
    manifest = manifest_of(files, *more)
    for path, data in {**files, "manifest.json": manifest}.items():
        storage.write_bytes(uri.child(path), data)
    digest = hashlib.sha256(manifest).hexdigest()
    task = FetchTask(model="ada:ft-acme", uri=str(uri), manifest_sha256=digest, folder=str(folder))
    return Published(storage, uri, folder, task)


def content(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


class ObservedStorage(LocalStorage):
    """A folder as a bucket. It calls `before` with the name of each file that is downloaded."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.downloaded: list[str] = []
        self.before: Callable[[str], object] = lambda name: None

    def download_listed(
        self, uri: S3Uri, entry: ObjectEntry, path: Path, progress: ProgressCallback | None = None
    ) -> None:
        self.downloaded.append(path.name)
        self.before(path.name)
        super().download_listed(uri, entry, path, progress)
