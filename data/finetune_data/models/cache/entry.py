"""One model in the cache: its files, and the record that they were verified."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from finetune_api.wire import Stored
from finetune_data.models.cache.volume import FOLDER_MODE, CacheVolume, allocated_bytes, remove
from finetune_data.models.remote_model import RemoteFile
from finetune_data.models.safetensors_files import find_truncation
from finetune_storage.manifests import sha256, to_bytes

MARKER = "verified.json"
MARKER_BYTES = 2**20  # at most; a larger one is not ours
EXPECTED = "expected-bytes"  # the size of the model while a pod downloads it
INCOMING = "incoming-"


class VerifiedFile(Stored):
    """A file that was complete when it had this size and this time."""

    size: int  # bytes
    mtime_ns: int  # nanoseconds since 1970
    sha256: str | None = None  # None: the source publishes no digest


class Marker(Stored):
    """`verified.json`: the files of a complete entry, and for people, where they are from."""

    source: str = ""
    files: dict[str, VerifiedFile]


class Entry:
    """The folder of a model. Only the methods that say so change anything."""

    def __init__(self, volume: CacheVolume, source: str, files: Sequence[RemoteFile]) -> None:
        """source: the address of the model, with the endpoint that it was resolved at."""
        self._volume = volume
        self.source = source
        self.files = files
        self.key = _key(source, files)
        self.folder = volume.entry(self.key)
        self.size = sum(file.size for file in files)

    def is_complete(self) -> bool:
        """Whether the files are those that were verified. Reads their headers only."""
        marker = self._marker()
        return all(
            self._is_verified(file, marker) and not find_truncation(self.folder / file.name)
            for file in self.files
        )

    def find_missing(self, progress: Callable[[int], None]) -> list[RemoteFile]:
        """The files that are missing or damaged. progress: gets the bytes that are hashed."""
        marker = self._marker()
        return [file for file in self.files if not self._is_intact(file, marker, progress)]

    def present_bytes(self) -> int:
        """The disk space of what was downloaded so far."""
        return allocated_bytes(self.folder)

    # --- changes, with the lock for downloads ----------------------------------------------------

    def begin(self, missing: Sequence[RemoteFile]) -> None:
        """Prepare the folder, and reserve space for missing files until `finish`.

        A record of an earlier download may stay: it does not describe the files that arrive.
        """
        if not self._volume.is_own_folder(self.folder):
            remove(self.folder)
            self.folder.mkdir(FOLDER_MODE)
        for path in self.folder.iterdir():
            if path.name.startswith(INCOMING):  # of a pod that ended while it downloaded
                remove(path)
        missing_bytes = sum(file.size for file in missing)
        self._write(EXPECTED, str(self.present_bytes() + missing_bytes).encode())

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """A temporary folder on the same file system."""
        folder = self.folder / f"{INCOMING}{uuid.uuid4().hex}"
        folder.mkdir(FOLDER_MODE)
        try:
            yield folder
        finally:
            remove(folder)

    def accept(self, file: RemoteFile, folder: Path) -> None:
        """Move a verified file from a temporary folder to its place, durably."""
        target = self.folder / file.name
        _sync(folder / file.name)
        if self._volume.own_file(target) is None:
            remove(target)
        (folder / file.name).replace(target)

    def finish(self) -> None:
        """Record that all files are verified."""
        files = {}
        for file in self.files:
            status = (self.folder / file.name).lstat()
            files[file.name] = VerifiedFile(
                size=status.st_size, mtime_ns=status.st_mtime_ns, sha256=file.sha256
            )
        _sync(self.folder)
        self._write(MARKER, to_bytes(Marker(source=self.source, files=files)))
        _sync(self.folder)
        remove(self.folder / EXPECTED)

    # --- parts -----------------------------------------------------------------------------------

    def _is_intact(
        self, file: RemoteFile, marker: Marker | None, progress: Callable[[int], None]
    ) -> bool:
        if not self._volume.is_own_folder(self.folder):
            return False
        path = self.folder / file.name
        if self._volume.own_file(path) is None:
            return False
        if self._is_verified(file, marker):
            return find_truncation(path) is None
        return find_damage(path, file, progress) is None

    def _is_verified(self, file: RemoteFile, marker: Marker | None) -> bool:
        found = marker.files.get(file.name) if marker else None
        status = self._volume.own_file(self.folder / file.name)
        return (
            found is not None
            and status is not None
            and status.st_size == file.size == found.size
            and status.st_mtime_ns == found.mtime_ns
            and file.sha256 in {None, found.sha256}
        )

    def _marker(self) -> Marker | None:
        if not self._volume.is_own_folder(self.folder):
            return None
        data = read_own(self._volume, self.folder / MARKER)
        try:
            return Marker.model_validate_json(data)
        except ValidationError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        """Write a small file, which appears completely or not at all."""
        with self.incoming() as folder:
            (folder / name).write_bytes(data)
            _sync(folder / name)
            target = self.folder / name
            if self._volume.own_file(target) is None:
                remove(target)
            (folder / name).replace(target)


def find_damage(path: Path, file: RemoteFile, progress: Callable[[int], None]) -> str | None:
    """The problem of a file, in words; None for one that has the contents of the source."""
    size = path.stat().st_size
    if size != file.size:
        return f"{file.name} has {size:,} bytes instead of {file.size:,}"
    if problem := find_truncation(path):
        return f"{file.name} {problem}"
    if file.sha256 is not None and sha256(path, progress) != file.sha256:
        return f"{file.name} has a SHA-256 that differs from the published one"
    return None


def read_own(volume: CacheVolume, path: Path) -> bytes:
    """A small file with an accepted owner; empty for anything else."""
    status = volume.own_file(path)
    if status is None or status.st_size > MARKER_BYTES:
        return b""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(MARKER_BYTES)


def _key(source: str, files: Sequence[RemoteFile]) -> str:
    """A replaced model has another key, and so has the same address at another endpoint."""
    content = [source, *([file.name, file.size, file.version] for file in files)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Bring a file or a folder to the disk: a crash of the node must leave no file of zeros."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
