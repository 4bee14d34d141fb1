"""The files of models on this machine: downloaded once, verified, and bounded on disk."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from finetune_api.layout import MANIFEST
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import CONFIG, find_problem
from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.download import (
    PublishedModel,
    download,
    find_model,
    list_objects,
)
from finetune_serving.problems import unusable
from finetune_storage.manifests import find_damage
from finetune_storage.s3 import Storage
from finetune_storage.versions import ObjectEntry
from finetune_web.problems import Problem

logger = logging.getLogger(__name__)

_PART = ".part-"


class ModelFiles:
    """Provides folders of verified files. Methods are called from the threads of models."""

    def __init__(
        self, folder: Path, most_bytes: int | None, open_storage: Callable[[], Storage]
    ) -> None:
        """folder: of the cache, which only this process uses. open_storage: of the environment."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._open_storage = open_storage
        self._lock = threading.Lock()  # one download at a time: each can use the whole network
        self._storage: Storage | None = None
        self._verified: set[Path] = set()
        self._used: Counter[Path] = Counter()
        self.is_closing = threading.Event()

    def provide(self, address: ModelAddress) -> Path:
        """The folder of a model, until `release`. Raises Problem or FailureError."""
        if isinstance(address.location, Path):
            return self._local(address, address.location)
        with self._lock:
            folder = self._cached(address, address.location)
            self._used[folder] += 1  # before the next download looks for room
        return folder

    def release(self, folder: Path) -> None:
        with self._lock:
            self._used[folder] -= 1

    def _local(self, address: ModelAddress, folder: Path) -> Path:
        if not (folder / CONFIG).is_file():
            raise unusable(f"{folder} contains no model: {CONFIG} is missing.")
        if problem := find_problem(folder, weights=True):
            raise unusable(f"The model '{address.name}' in {folder} is damaged: {problem}.")
        return folder

    def _cached(self, address: ModelAddress, uri: S3Uri) -> Path:
        if self._storage is None:
            self._prepare()
            self._storage = self._open_storage()
        model = find_model(self._storage, uri, self._folder, address.manifest_sha256)
        folder = self._folder / model.digest
        if folder in self._verified:
            folder.touch()
            return folder
        if folder.is_dir() and find_damage(folder, model.files):  # of a process that lost its disk
            shutil.rmtree(folder)
        if not folder.is_dir():
            objects = list_objects(self._storage, model)
            self._make_room(address, model.size)
            self._download(self._storage, model, objects, folder)
        self._verified.add(folder)
        return folder

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for rest in self._folder.glob(f"{_PART}*"):  # of a process that was killed
            shutil.rmtree(rest, ignore_errors=True)

    def _download(
        self,
        storage: Storage,
        model: PublishedModel,
        objects: Mapping[str, ObjectEntry],
        folder: Path,
    ) -> None:
        logger.info("downloading %s", model.uri)
        with tempfile.TemporaryDirectory(prefix=_PART, dir=self._folder) as name:
            part = Path(name) / "model"
            part.mkdir()
            download(storage, model, objects, part, self._check_end)
            (part / MANIFEST).write_bytes(model.manifest)
            part.rename(folder)

    def _check_end(self, done: int, total: int) -> None:
        if self.is_closing.is_set():
            raise ConnectionAbortedError("the server ends")

    def _make_room(self, address: ModelAddress, needed: int) -> None:
        """Delete the models that were not used for the longest time."""
        sizes = {folder: _size(folder) for folder in self._folder.iterdir() if folder.is_dir()}
        free = shutil.disk_usage(self._folder).free
        if self._most_bytes is not None:
            free = min(free, self._most_bytes - sum(sizes.values()))
        idle = sorted((it for it in sizes if not self._used[it]), key=lambda it: it.stat().st_mtime)
        if free + sum(sizes[folder] for folder in idle) < needed:
            raise self._no_room(address, needed)
        for folder in idle:
            if free >= needed:
                return
            logger.info("deleting %s from the cache", folder.name)
            self._verified.discard(folder)
            shutil.rmtree(folder)
            free += sizes[folder]

    def _no_room(self, address: ModelAddress, needed: int) -> Problem:
        return unusable(
            f"The model '{address.name}' needs {needed / 1e9:,.1f} GB on disk, more than the cache "
            f"{self._folder} has. Raise --cache-bytes, or use a larger volume."
        )


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
