"""Uploads local files to S3, once for each content, independent of the file name.

The key of a file is `<prefix>/<half of its SHA-256>/<name>`, so an existing upload is found by the
content of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_storage.progress import ProgressCallback
    from finetune_storage.s3 import Storage

BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True)
class Upload:
    """A local file and its address in S3. size: in bytes; exists: the content is already there."""

    path: Path
    uri: S3Uri
    size: int
    modified: int  # nanoseconds
    exists: bool


def is_local(address: object) -> bool:
    """Whether an address is a file on this machine: an address without `scheme://`."""
    return isinstance(address, str) and bool(address) and "://" not in address


def find_file(address: str, folder: Path) -> Path:
    """The file, relative to `folder`. Raises CommandError if it is not a nonempty file."""
    path = folder / Path(address).expanduser()
    try:
        if not path.exists():
            raise _wrong(f"there is no file {path}", "pass a file, or an address s3://bucket/key")
        if not path.is_file():
            raise _wrong(f"{path} is not a file", "pass one file; `prepare-data` can merge several")
        if path.stat().st_size == 0:
            raise _wrong(f"{path} is empty", "pass a file with examples")
        with path.open("rb"):
            return path
    except OSError as error:
        raise _wrong(f"cannot read {path}: {error.strerror}") from error


def plan_upload(
    path: Path, prefix: str, storage: Storage, progress: ProgressCallback, *, reuse: bool = True
) -> Upload:
    """The address of the file, and whether its content is already there. Reads the whole file."""
    base = parse_prefix(prefix)
    before = path.stat()
    digest = sha256(path, before.st_size, progress)
    folder = base.child(digest[:32])
    uri = folder.child(_key_name(path.name))
    exists = False
    if reuse:
        # objects are never partial; the extension determines the format, so it must match
        for entry in storage.list(folder):
            name = entry.key.rpartition("/")[2]
            if entry.size == before.st_size and _extension(name) == _extension(path.name):
                uri, exists = S3Uri(uri.bucket, entry.key), True
                break
    return Upload(path, uri, before.st_size, before.st_mtime_ns, exists)


def send_upload(upload: Upload, storage: Storage, progress: ProgressCallback) -> None:
    """Upload the file unless it exists. Raises CommandError if it changes during the upload."""
    if upload.exists:
        return
    _require_unchanged(upload)
    storage.upload_file(upload.path, upload.uri, progress)
    try:
        _require_unchanged(upload)
    except CommandError:
        storage.delete(upload.uri)  # its address would not match its content
        raise


def require_different_training_files(planned: Mapping[str, Upload]) -> None:
    """Raise CommandError for two training files with the same content, which have one address."""
    first: dict[str, Upload] = {}
    for field, upload in planned.items():
        if not field.startswith("trainingFiles["):
            continue
        content = upload.uri.key.rpartition("/")[0]
        if content in first:
            raise _wrong(
                f"{upload.path} has the same content as {first[content].path}",
                "list each file once, and repeat its examples with a weight",
            )
        first[content] = upload


def parse_prefix(prefix: str) -> S3Uri:
    try:
        return S3Uri.parse(prefix)
    except ValueError as error:
        raise _wrong(f"--upload-to: {error}") from error


def sha256(path: Path, size: int, progress: Callable[[int, int], None]) -> str:
    """The hexadecimal digest of a file."""
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
            f"{upload.path} changed during the upload",
            "retry after other programs have finished writing to it",
        )


def _key_name(name: str) -> str:
    """The file name as part of a key, with dashes for control characters and backslashes."""
    return "".join(char if char.isprintable() and char not in "\\/" else "-" for char in name)


def _extension(name: str) -> str:
    return name.partition(".")[2].lower()


def _wrong(message: str, hint: str = "") -> CommandError:
    return CommandError(message, hint, code=EXIT_USAGE)
