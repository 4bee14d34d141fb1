"""Transfers of whole files between S3 and a folder: in parallel, and never outside the folder.

Keys are untrusted: a bucket that others can write to must not choose paths on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem
from finetune_storage.progress import ProgressMeter
from finetune_storage.reads import ObjectReads
from finetune_storage.stream import ObjectStream

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

FILES_AT_ONCE = 4
RANGES_AT_ONCE = 6  # of one file
CONNECTIONS = FILES_AT_ONCE * (RANGES_AT_ONCE + 1)
PART_BYTES = 32 * 1024 * 1024
BLOCK_BYTES = 256 * 1024


class Entry(Protocol):
    """The entry of an object in a listing."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...


AnyEntry = TypeVar("AnyEntry", bound=Entry)
Item = TypeVar("Item")


def choose_files(
    entries: Iterable[AnyEntry], prefix: S3Uri, folder: Path, include: Sequence[str]
) -> dict[str, AnyEntry]:
    """The entries to download, by path below the prefix. Raises StorageError for a bad key."""
    start = len(prefix.key) + 1 if prefix.key else 0
    chosen: dict[str, AnyEntry] = {}
    for entry in entries:
        relative = entry.key[start:]
        if not matches(relative, include) or (relative.endswith("/") and entry.size == 0):
            continue  # some tools write an empty object with a slash for an empty folder
        if not is_safe(relative, folder):
            context = ProblemContext(str(prefix), detail=repr(entry.key))
            raise StorageError.from_problem(StorageProblem.KEY_UNSAFE, context)
        chosen[relative] = entry
    for relative in chosen:
        parent = next((p for p in Path(relative).parents if str(p) in chosen), None)
        if parent is not None:
            context = ProblemContext(str(prefix), detail=repr(str(parent)))
            raise StorageError.from_problem(StorageProblem.KEY_IS_FOLDER, context)
    return chosen


def matches(relative: str, include: Sequence[str]) -> bool:
    """Whether a pattern matches the path. `*` stays in one folder level, `**` does not."""
    return any(
        fnmatchcase(relative, pattern)
        and ("**" in pattern or relative.count("/") == pattern.count("/"))
        for pattern in include
    )


def is_safe(relative: str, folder: Path) -> bool:
    """Whether the path stays below the folder, on every system and after links are resolved."""
    if any(part in {"", ".", ".."} for part in relative.split("/")):
        return False
    if any(ord(char) < 32 or char in "\\\x7f" for char in relative):
        return False
    root = folder.resolve()
    target = (root / relative).resolve()
    return target != root and target.is_relative_to(root)


def fetch_in_parallel(
    fetch: Callable[[Item], None], items: Iterable[Item], at_once: int = FILES_AT_ONCE
) -> None:
    """Call `fetch` for every item, a few at a time. The first error stops all and is raised."""
    with ThreadPoolExecutor(at_once, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(fetch, item) for item in items]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
        for future in done:
            future.result()


def download(reads: ObjectReads, path: Path, meter: ProgressMeter) -> None:
    """Download the version of an object that `reads` knows, in parallel ranges if it is large.

    Writes a temporary file first, so that `path` is never half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    size = reads.entry.size
    step = PART_BYTES if size > 2 * PART_BYTES else max(size, 1)

    def copy(start: int) -> None:
        with ObjectStream(reads, start, min(start + step, size)) as stream, part.open("r+b") as to:
            to.seek(start)
            while block := stream.read(BLOCK_BYTES):
                to.write(block)
                meter(len(block))

    try:
        with part.open("wb") as file:
            file.truncate(size)
        fetch_in_parallel(copy, range(0, size, step), RANGES_AT_ONCE)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def upload(client: S3Client, path: Path, uri: S3Uri, meter: ProgressMeter) -> None:
    """Upload a file, in parts if it is large."""
    # upload_file would wrap S3's error in an exception without its code
    with path.open("rb") as file:
        client.upload_fileobj(file, uri.bucket, uri.key, Callback=meter, Config=_config())


def _config() -> TransferConfig:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=2 * PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=RANGES_AT_ONCE,
        preferred_transfer_client="classic",
    )
