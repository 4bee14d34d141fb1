"""File objects: uploaded files, and the files that FineTunes publish.

An uploaded file is at `<files>/<namespace>/files/<file id>/<purpose>/<name>`: its address has all
that a File object shows except its size. An address elsewhere is an id of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

from finetune_api.uris import S3Uri
from finetune_api.wire import JsonObject
from finetune_gateway.wire.ids import Artifact, file_time, is_file_id

Purpose = Literal["fine-tune", "fine-tune-results"]
RESULTS: Purpose = "fine-tune-results"
# The names that OpenAI's API has for results; the report is this project's own.
ARTIFACT_NAMES = {"results": "compiled_results.csv", "report": "report.html"}


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file, or a file that a FineTune published."""

    id: str
    purpose: str
    name: str
    size: int  # bytes
    created_at: datetime
    uri: S3Uri


class FileKey(NamedTuple):
    """What the address of an uploaded file says."""

    id: str
    purpose: str
    name: str


def parse_key(root: S3Uri, uri: S3Uri) -> FileKey | None:
    """The parts of an address below the root of the uploaded files; None if it has other parts."""
    start = f"{root.key}/" if root.key else ""
    if uri.bucket != root.bucket or not uri.key.startswith(start):
        return None
    parts = uri.key[len(start) :].split("/")
    if len(parts) != len(FileKey._fields) or not is_file_id(parts[0]):
        return None
    return FileKey(*parts)


def file_object(file: StoredFile) -> JsonObject:
    """OpenAI's File object."""
    at = int(file.created_at.timestamp())
    return _object(file.id, file.name, file.purpose, file.size, at)


@dataclass(frozen=True)
class KnownFiles:
    """Which addresses have an id. An address without one is its own id."""

    root: S3Uri  # of the uploaded files
    stored: Mapping[str, StoredFile] = field(default_factory=dict)  # by address, if known
    published: Mapping[str, Artifact] = field(default_factory=dict)  # by address

    def id_of(self, address: str) -> str:
        artifact = self.published.get(address)
        if artifact is not None:
            return artifact.id
        key = self._key(address)
        return address if key is None else key.id

    def object_of(self, address: str, purpose: Purpose, created_at: int | None) -> JsonObject:
        """The File object of an address that a FineTune has.

        The size is null if the file is not at hand, as it is for an address of the user.
        created_at: of the file, unless its id has the time.
        """
        if address in self.stored:
            return file_object(self.stored[address])
        artifact = self.published.get(address)
        if artifact is not None:
            name = ARTIFACT_NAMES[artifact.kind]
            return _object(artifact.id, name, RESULTS, None, created_at)
        key = self._key(address)
        if key is not None:
            at = int(file_time(key.id).timestamp())
            return _object(key.id, key.name, key.purpose, None, at)
        return _object(address, address.rsplit("/", 1)[-1], purpose, None, created_at)

    def _key(self, address: str) -> FileKey | None:
        try:
            return parse_key(self.root, S3Uri.parse(address))
        except ValueError:
            return None


def _object(
    file_id: str, name: str, purpose: str, size: int | None, created_at: int | None
) -> JsonObject:
    """An uploaded file is complete and checked once it exists, so it is always processed."""
    return {
        "id": file_id,
        "object": "file",
        "bytes": size,
        "created_at": created_at,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }
