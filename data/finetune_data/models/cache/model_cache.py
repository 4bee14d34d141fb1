"""Provides the weights of base models from the cache, and downloads them once for all pods."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune_data.models.cache.entry import Entry, find_damage
from finetune_data.models.cache.eviction import make_room
from finetune_data.models.cache.locks import CacheError, FileLock
from finetune_data.models.cache.volume import CacheVolume
from finetune_data.models.remote_model import RemoteFile, RemoteModel
from finetune_storage.progress import ProgressCallback, ProgressMeter, file_progress
from finetune_storage.transfers import fetch_in_parallel

POLL_SECONDS = 1.0
QUIET_SECONDS = 900.0  # without a byte and without a sign of the pod that holds the lock
HEARTBEAT_SECONDS = 5.0


class DamagedFileError(Exception):
    """A file that was downloaded differs from what its source publishes."""


class ModelCache:
    """The cache of a pod. It holds a lock on each provided model until it is closed."""

    def __init__(
        self,
        volume: CacheVolume,
        *,
        waiting: ProgressCallback | None = None,
        poll_seconds: float = POLL_SECONDS,
        quiet_seconds: float = QUIET_SECONDS,
    ) -> None:
        """waiting: called while another pod downloads, with the bytes that are there."""
        self._volume = volume
        self._waiting = waiting or (lambda done, total: None)
        self._poll_seconds = poll_seconds
        self._quiet_seconds = quiet_seconds
        self._held: list[FileLock] = []

    def provide(
        self,
        model: RemoteModel,
        files: Sequence[RemoteFile],
        progress: ProgressCallback | None = None,
    ) -> Path:
        """The folder of these files of the model, complete and verified.

        files: of model.weights, each with its digest if it is known. Raises CacheError if the cache
        cannot be used, DamagedFileError, and the errors of the model's source.
        """
        entry = Entry(self._volume, model.location, files)
        try:
            self._use(entry)
            if entry.is_complete():
                return entry.folder
            if not self._volume.is_writable:
                return self._verify(entry)
            with self._lock(f"{entry.key}.download", entry) as lock:
                if not entry.is_complete():  # another pod may have completed it
                    self._download(entry, model, lock, progress)
            return entry.folder
        except OSError as error:
            raise CacheError(f"{self._volume.root}: {error.strerror or error}") from error

    def close(self) -> None:
        """Release the locks: other pods may remove the models."""
        while self._held:
            self._held.pop().close()

    def _use(self, entry: Entry) -> None:
        """Keep other pods from removing the model."""
        lock = self._volume.lock(f"{entry.key}.use")
        if lock is None:
            return  # in a cache that this pod cannot write to
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock)
            self._wait(entry, lock.try_shared, lock.used_at)
            if self._volume.is_writable:
                lock.touch()
            self._held.append(lock)
            stack.pop_all()

    def _verify(self, entry: Entry) -> Path:
        if entry.find_missing(lambda _: None):
            raise CacheError(
                f"{self._volume.root} cannot be written, and does not contain the base model"
            )
        return entry.folder

    def _download(
        self, entry: Entry, model: RemoteModel, lock: FileLock, progress: ProgressCallback | None
    ) -> None:
        heartbeat = _Heartbeat(lock)
        missing = entry.find_missing(heartbeat)
        with self._lock("space", entry):
            make_room(self._volume, sum(file.size for file in missing), entry.key)
            entry.begin(missing)
        wanted = {file.name: file for file in missing}

        def report(done: int, total: int) -> None:
            heartbeat(0)
            if progress is not None:
                progress(done, total)

        meter = ProgressMeter(entry.size, report)
        meter(entry.size - sum(file.size for file in missing))
        with entry.incoming() as folder:

            def fetch(name: str) -> None:
                model.fetch([name], folder, file_progress(meter))
                if problem := find_damage(folder / name, wanted[name], heartbeat):
                    raise DamagedFileError(problem)
                entry.accept(wanted[name], folder)

            fetch_in_parallel(fetch, wanted)
        entry.finish()

    @contextmanager
    def _lock(self, name: str, entry: Entry) -> Iterator[FileLock]:
        lock = self._volume.lock(name)
        assert lock is not None, "the cache is writable"
        with lock:
            self._wait(entry, lock.try_exclusive, lock.used_at)
            yield lock

    def _wait(self, entry: Entry, take: Callable[[], bool], used_at: Callable[[], int]) -> None:
        """Return when the lock is taken. Raises CacheError if its holder makes no progress."""
        seen: tuple[int, int] | None = None
        since = 0.0
        while not take():
            now = time.monotonic()
            present = entry.present_bytes()
            if seen != (present, used_at()):
                seen, since = (present, used_at()), now
            elif now - since > self._quiet_seconds:
                raise CacheError(
                    f"another pod has held a lock for {self._quiet_seconds:.0f} s without progress"
                )
            self._waiting(min(present, entry.size), entry.size)
            time.sleep(self._poll_seconds)


class _Heartbeat:
    """Shows the pods that wait for a lock that its holder makes progress."""

    def __init__(self, lock: FileLock) -> None:
        self._lock = lock
        self._next = 0.0

    def __call__(self, _: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + HEARTBEAT_SECONDS
            self._lock.touch()
