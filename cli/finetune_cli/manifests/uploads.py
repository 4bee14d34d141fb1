"""Local files on their way to S3: once for each content, whatever they are called.

A file lies at `<prefix>/<half of its SHA-256>/<name>`: what is there already is known by its
content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_storage.s3 import ProgressCallback, Storage

BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Upload:
    """One local file and its place in S3. size in bytes; is_there: nothing need be sent."""

    path: Path
    uri: S3Uri
    size: int
    modified: int  # nanoseconds
    is_there: bool


def is_local(address: object) -> bool:
    """Whether an address is a file of this machine: one without `scheme://`."""
    return isinstance(address, str) and bool(address) and "://" not in address


def find_file(address: str, folder: Path) -> Path:
    """The file, relative to `folder`. Raises CommandError for what is no file with content."""
    path = folder / Path(address).expanduser()
    try:
        if not path.exists():
            raise _wrong(f"there is no file {path}", "give a file, or an address s3://bucket/key")
        if not path.is_file():
            raise _wrong(f"{path} is not a file", "give one file; `prepare-data` joins several")
        if path.stat().st_size == 0:
            raise _wrong(f"{path} is empty", "give a file with examples")
        with path.open("rb"):
            return path
    except OSError as error:
        raise _wrong(f"{path} can't be read: {error.strerror}") from error


def plan(
    path: Path, prefix: str, storage: Storage, progress: ProgressCallback, *, reuse: bool = True
) -> Upload:
    """Where the file goes, and whether its content is there. Reads the whole file."""
    base = parse_prefix(prefix)
    before = path.stat()
    digest = sha256(path, before.st_size, progress)
    place = base.child(digest[:32])
    uri = place.child(_key_name(path.name))
    is_there = False
    if reuse:
        # an object is whole or not there at all; its ending tells its format, so it must agree
        for entry in storage.list(place):
            name = entry.key.rpartition("/")[2]
            if entry.size == before.st_size and _ending(name) == _ending(path.name):
                uri, is_there = S3Uri(uri.bucket, entry.key), True
                break
    return Upload(path, uri, before.st_size, before.st_mtime_ns, is_there)


def send(upload: Upload, storage: Storage, progress: ProgressCallback) -> None:
    """Upload it, unless it is there. Raises CommandError when it changed meanwhile."""
    if upload.is_there:
        return
    _require_unchanged(upload)
    storage.upload_file(upload.path, upload.uri, progress)
    try:
        _require_unchanged(upload)
    except CommandError:
        storage.delete(upload.uri)  # its address would lie about its content
        raise


def parse_prefix(prefix: str) -> S3Uri:
    try:
        return S3Uri.parse(prefix)
    except ValueError as error:
        raise _wrong(f"--upload-to: {error}") from error


def sha256(path: Path, size: int, progress: Callable[[int, int], None]) -> str:
    """Hexadecimal digest of a file, in blocks."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            progress(done, size)
    return digest.hexdigest()


def _require_unchanged(upload: Upload) -> None:
    now = upload.path.stat()
    if (now.st_size, now.st_mtime_ns) != (upload.size, upload.modified):
        raise CommandError(
            f"{upload.path} changed while it was uploaded", "try again when nothing writes to it"
        )


def _key_name(name: str) -> str:
    """The file's name as a part of a key: control characters and backslashes become dashes."""
    return "".join(char if char.isprintable() and char not in "\\/" else "-" for char in name)


def _ending(name: str) -> str:
    return name.partition(".")[2].lower()


def _wrong(message: str, hint: str = "") -> CommandError:
    return CommandError(message, hint, code=EXIT_USAGE)
