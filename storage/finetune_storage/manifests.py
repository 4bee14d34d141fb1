"""Manifests: they make a prefix in S3 complete, and list the digests of its files.

A manifest is written last, so a prefix without one counts as missing. Every kind of prefix
(dataset, model, checkpoint) lists its files in the same form, next to the fields of its kind.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from finetune_api.uris import S3Uri
from finetune_api.wire import Stored

HASH_BLOCK = 4 * 1024 * 1024
HASHES_AT_ONCE = 4  # hashing releases the interpreter lock


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
        """The manifest; None for any other content, such as a manifest of another tool."""
        try:
            return cls.model_validate_json(data)
        except ValidationError:
            return None


def file_uri(uri: S3Uri, path: str) -> S3Uri | None:
    """The address of a file below the prefix; None for a path of a hostile manifest."""
    key = uri.child(path)
    try:
        return key if path and S3Uri.parse(str(key)).key == f"{uri.key}/{path}" else None
    except ValueError:
        return None


def file_entry(folder: Path, path: str) -> FileEntry:
    """The entry of a file, with its size and digest."""
    return FileEntry(path=path, size=(folder / path).stat().st_size, sha256=sha256(folder / path))


def file_entries(folder: Path, paths: Iterable[str]) -> list[FileEntry]:
    """The entries of several files in the same order; their digests are computed in parallel."""
    with ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="sha256") as pool:
        return list(pool.map(lambda path: file_entry(folder, path), paths))


def sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """The hexadecimal digest of a file, computed without loading all of it.

    progress: gets the number of bytes of each block.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
            if progress is not None:
                progress(len(block))
    return digest.hexdigest()


def find_damage(folder: Path, files: Iterable[FileEntry]) -> str | None:
    """The problem of the first damaged file, in words; None if all files match their entries."""

    def check(entry: FileEntry) -> str | None:
        path = folder / entry.path
        if not path.is_file():
            return f"{entry.path} is missing"
        if (size := path.stat().st_size) != entry.size:
            return f"{entry.path} has {size:,} bytes instead of {entry.size:,}"
        if sha256(path) != entry.sha256:
            return f"{entry.path} has a SHA-256 that differs from its manifest"
        return None

    with ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="sha256") as pool:
        return next(filter(None, pool.map(check, files)), None)


def to_bytes(value: Stored) -> bytes:
    """The stored form of a manifest: indented, for people who open it."""
    return (json.dumps(value.to_dict(), indent=1, ensure_ascii=False) + "\n").encode()
