"""The files of a published model in S3: listed by its manifest, downloaded, and verified.

The manifest and the listing are untrusted. They choose no path outside the folder, and every file
must have the size and the digest of the manifest.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune_api.errors import FailureError
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.uris import S3Uri
from finetune_data.models.base_models import CONFIG
from finetune_serving.models import failures
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry, Manifest, find_damage
from finetune_storage.progress import ProgressCallback, ProgressMeter, file_progress
from finetune_storage.s3 import Storage
from finetune_storage.transfers import fetch_in_parallel, is_safe
from finetune_storage.versions import ObjectEntry

ADAPTER = "adapter/"  # the weights of the model contain it
MANIFEST_BYTES = 2**24  # at most; a larger file is not a manifest of ours
MOST_BYTES = 10**15  # of a file


@dataclass(frozen=True)
class PublishedModel:
    """A model whose manifest was read.

    digest: the hexadecimal SHA-256 of the manifest. files: those that a server needs, which
    excludes the adapter.
    """

    uri: S3Uri
    manifest: bytes
    digest: str
    files: tuple[FileEntry, ...]

    @property
    def size(self) -> int:
        """The bytes of the files."""
        return sum(entry.size for entry in self.files)

    @property
    def paths(self) -> frozenset[str]:
        """The paths of the files below the address, with slashes."""
        return frozenset(entry.path for entry in self.files)


def find_model(
    storage: Storage, uri: S3Uri, folder: Path, manifest_sha256: str | None
) -> PublishedModel:
    """Read the manifest of the model at an address.

    folder: where the files will be, which no path may leave. manifest_sha256: the hexadecimal
    digest that the manifest must have; None: any. Raises FailureError.
    """
    try:
        data = storage.read_bytes(uri.child(MANIFEST))
    except StorageError as error:
        if error.failure.code == Reason.DATA_NOT_FOUND:
            raise FailureError(failures.missing_model(uri, storage.endpoint)) from error
        raise
    digest = hashlib.sha256(data).hexdigest()
    if manifest_sha256 not in {None, digest}:
        raise FailureError(failures.changed_manifest(uri))
    manifest = Manifest.parse_files(data) if len(data) <= MANIFEST_BYTES else None
    if manifest is None:
        problem = f"{MANIFEST} has an unknown format"
        raise FailureError(failures.no_published_model(uri, problem))
    if invalid := _find_invalid(manifest.files, folder):
        raise FailureError(failures.no_published_model(uri, invalid))
    files = tuple(entry for entry in manifest.files if not entry.path.startswith(ADAPTER))
    return PublishedModel(uri, data, digest, files)


def list_objects(storage: Storage, model: PublishedModel) -> Mapping[str, ObjectEntry]:
    """The objects of the model's files by path. Raises FailureError if one is missing or differs.

    Sizes are compared here, before a byte is downloaded and before space is made.
    """
    start = len(model.uri.key) + 1 if model.uri.key else 0
    listed = {entry.key[start:]: entry for entry in storage.list(model.uri)}
    for entry in model.files:
        found = listed.get(entry.path)
        if found is None:
            damage = f"{entry.path} is missing"
            raise FailureError(failures.damaged_model(model.uri, damage))
        if found.size != entry.size:
            damage = f"{entry.path} has {found.size:,} bytes instead of {entry.size:,}"
            raise FailureError(failures.damaged_model(model.uri, damage))
    return {entry.path: listed[entry.path] for entry in model.files}


def download(
    storage: Storage,
    model: PublishedModel,
    objects: Mapping[str, ObjectEntry],
    folder: Path,
    progress: ProgressCallback | None = None,
) -> int:
    """Download the files to a folder, and verify each; returns the bytes that were downloaded.

    A file that is complete already is kept. Each file appears when it is complete, and config.json
    after all others. objects: of `list_objects`. progress: gets the bytes of the files that are
    there. Raises FailureError, OSError, and what `progress` raises.
    """
    meter = ProgressMeter(model.size, progress)
    downloaded: list[int] = []

    def fetch(entry: FileEntry) -> None:
        if find_damage(folder, [entry]) is None:
            meter(entry.size)
            return
        found = objects[entry.path]
        source = S3Uri(model.uri.bucket, found.key)
        storage.download_listed(source, found, folder / entry.path, file_progress(meter))
        if damage := find_damage(folder, [entry]):
            raise FailureError(failures.damaged_model(model.uri, damage))
        downloaded.append(entry.size)

    fetch_in_parallel(fetch, [entry for entry in model.files if entry.path != CONFIG])
    fetch_in_parallel(fetch, [entry for entry in model.files if entry.path == CONFIG])
    return sum(downloaded)


def _find_invalid(files: Sequence[FileEntry], folder: Path) -> str | None:
    """The first problem of a hostile manifest, in words; None if it lists files of one folder."""
    for entry in files:
        if not is_safe(entry.path, folder):
            return f"{MANIFEST} lists the invalid path {entry.path[:100]!r}"
        if not 0 <= entry.size <= MOST_BYTES:
            return f"{MANIFEST} lists an invalid size of {entry.path}"
    paths = Counter(entry.path for entry in files)
    for path, count in paths.items():
        if count > 1:
            return f"{MANIFEST} lists {path} twice"
        if any(str(parent) in paths for parent in PurePosixPath(path).parents):
            return f"{MANIFEST} lists {path} below another file"
    return None
