"""The files of a base model in S3."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from finetune_api.errors import Audience
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.tasks import BaseModelRef
from finetune_api.uris import S3Uri
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models.remote_model import RemoteFile, RemoteModel
from finetune_data.models.safetensors_files import LENGTH_BYTES, header_length
from finetune_storage.errors import StorageError
from finetune_storage.manifests import Manifest
from finetune_storage.progress import ProgressCallback, ProgressMeter, file_progress
from finetune_storage.s3 import Storage
from finetune_storage.transfers import choose_files, fetch_in_parallel, matches
from finetune_storage.versions import ObjectEntry

MANIFEST_BYTES = 2**24  # at most; a larger file is not a manifest of ours


class S3Model(RemoteModel):
    """The listing of a prefix."""

    def __init__(
        self,
        base: BaseModelRef,
        uri: S3Uri,
        storage: Storage,
        include: Sequence[str],
        folder: Path,
        *,
        versioned: Sequence[str],
    ) -> None:
        """include: patterns of wanted files. folder: where no file may escape from.

        versioned: patterns of the files that the revision depends on.
        """
        self._base = base
        self._uri = uri
        self._storage = storage
        start = len(uri.key) + 1 if uri.key else 0
        with self._errors():
            listed = storage.list(uri)
            self._entries: dict[str, ObjectEntry] = choose_files(listed, uri, folder, include)
        self.names = [entry.key[start:] for entry in listed]  # all files below the prefix
        self._versioned = {
            name: entry
            for name, entry in zip(self.names, listed, strict=True)
            if matches(name, versioned)
        }
        self.location = f"{storage.endpoint} {uri}"
        self.files = {
            name: RemoteFile(name, entry.size, entry.version)
            for name, entry in self._entries.items()
        }

    @cached_property
    def revision(self) -> str:
        """The digest of a manifest that lists all files; otherwise, of sizes and ETags.

        A copy of a fine-tuned model has the same revision, whatever ETags its store computes.
        """
        if found := self._manifest_digest():
            return f"manifest-sha256:{found}"
        with self._errors():
            again = {entry.key: entry for entry in self._storage.list(self._uri)}
        files = [
            [name, it.size, _steady_version(it, again.get(it.key))]
            for name, it in sorted(self._versioned.items())
        ]
        return f"sha256:{sha256(json.dumps(files).encode()).hexdigest()}"

    def _manifest_digest(self) -> str | None:
        entry = self._versioned.get(MANIFEST)
        if entry is None or entry.size > MANIFEST_BYTES:
            return None
        with self._errors():
            data = self._storage.read_bytes(S3Uri(self._uri.bucket, entry.key))
        manifest = Manifest.parse_files(data)
        sizes: Mapping[str, int] = (
            {file.path: file.size for file in manifest.files} if manifest else {}
        )
        others = {name: it.size for name, it in self._versioned.items() if name != MANIFEST}
        is_complete = all(sizes.get(name) == size for name, size in others.items())
        return sha256(data).hexdigest() if is_complete else None

    def space_needed(self) -> int:
        if not self._storage.needs_space(self._uri):
            return 0
        return sum(entry.size for entry in self._entries.values())

    def fetch(
        self, names: Collection[str], folder: Path, progress: ProgressCallback | None = None
    ) -> Path:
        meter = ProgressMeter(sum(self._entries[name].size for name in names), progress)

        def download(name: str) -> None:
            entry = self._entries[name]
            source = S3Uri(self._uri.bucket, entry.key)
            self._storage.download_listed(source, entry, folder / name, file_progress(meter))

        with self._errors():
            fetch_in_parallel(download, names)
        return folder

    def read_header(self, name: str) -> tuple[bytes, int]:
        entry = self._entries[name]
        uri = S3Uri(self._uri.bucket, entry.key)
        with self._errors():
            start = self._storage.read_range(uri, 0, LENGTH_BYTES, entry)
            length = header_length(start, entry.size)
            text = self._storage.read_range(uri, LENGTH_BYTES, length, entry)
        return text, entry.size - LENGTH_BYTES - length

    @contextmanager
    def _errors(self) -> Iterator[None]:
        base = self._base
        try:
            yield
        except StorageError as error:
            if error.failure.code in {Reason.DATA_NOT_FOUND, Reason.BUCKET_NOT_FOUND}:
                raise _missing(base, error) from error
            if error.failure.code == Reason.INVALID_DATA:
                failure = failures.unsafe_model(base.name, base.uri, error)
                raise BaseModelError(failure) from error
            raise error.about("model") from error


def _steady_version(entry: ObjectEntry, again: ObjectEntry | None) -> str:
    """The version of an object that was listed twice: its time if the store changes its ETags."""
    if again is not None and entry.etag != again.etag and entry.is_as_old_as(again):
        return entry.modified
    return entry.version


def _missing(base: BaseModelRef, error: StorageError) -> BaseModelError:
    """BaseModelNotFound for each audience of the storage error."""
    pod, shell = error.failure_for(Audience.POD), error.failure_for(Audience.SHELL)
    return BaseModelError(
        failures.missing_model(base.name, base.uri, pod.message),
        failures.missing_model(base.name, base.uri, shell.message).replace(hint=shell.hint),
    )
