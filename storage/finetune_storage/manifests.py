"""Manifests: what makes a prefix in S3 complete, and its files checkable.

A manifest is written last, so a prefix without one does not exist. Every kind of prefix (dataset,
model, checkpoint) lists its files alike; what is special to a kind stands beside the list.
"""

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from finetune_api.wire import Stored

HASH_BLOCK = 4 * 1024 * 1024


class FileEntry(Stored):
    """One file below the prefix."""

    path: str  # relative, with slashes
    size: int  # bytes
    sha256: str  # hexadecimal


class Manifest(Stored):
    """The list of files that every kind of manifest has."""

    files: list[FileEntry]

    @classmethod
    def parse_files(cls, data: bytes) -> "Manifest | None":
        """None for anything that is not a manifest of ours, such as another tool's."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def file_entry(folder: Path, path: str) -> FileEntry:
    """Size and digest of a file that was written."""
    return FileEntry(path=path, size=(folder / path).stat().st_size, sha256=sha256(folder / path))


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file, without holding it in memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def find_damage(folder: Path, files: Iterable[FileEntry]) -> str | None:
    """What is wrong with the first damaged file, in words; None when all are as listed."""

    def check(entry: FileEntry) -> str | None:
        path = folder / entry.path
        if not path.is_file():
            return f"{entry.path} is missing"
        if (size := path.stat().st_size) != entry.size:
            return f"{entry.path} has {size:,} bytes instead of {entry.size:,}"
        if sha256(path) != entry.sha256:
            return f"{entry.path} has another SHA-256 than its manifest says"
        return None

    with ThreadPoolExecutor(4, thread_name_prefix="sha256") as pool:  # hashing releases the GIL
        return next(filter(None, pool.map(check, files)), None)


def to_bytes(value: Stored) -> bytes:
    """A manifest as it is stored: indented, for people who look into the bucket."""
    return (json.dumps(value.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()
