"""Moving whole files between S3 and a folder: in parallel, counted, and never outside the folder.

Keys are hostile: a bucket that somebody else fills must not write where it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Protocol, TypeVar

from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.messages import ProblemContext, StorageProblem

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig
    from mypy_boto3_s3 import S3Client

FILES_AT_ONCE = 4
RANGES_AT_ONCE = 6  # of one file
CONNECTIONS = FILES_AT_ONCE * (RANGES_AT_ONCE + 1)
PART_BYTES = 32 * 1024 * 1024


class Entry(Protocol):
    """What a listing knows of an object."""

    @property
    def key(self) -> str: ...
    @property
    def size(self) -> int: ...


AnyEntry = TypeVar("AnyEntry", bound=Entry)


class Meter:
    """Counts bytes from several threads and tells how far it is."""

    def __init__(self, total: int, progress: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = Lock()

    def __call__(self, count: int) -> None:
        """`count` more bytes; negative where a part is fetched once more."""
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)


def choose(
    entries: Iterable[AnyEntry], prefix: S3Uri, folder: Path, include: Sequence[str]
) -> dict[str, AnyEntry]:
    """The entries to fetch, by their path below the prefix. Raises StorageError for a bad key."""
    start = len(prefix.key) + 1 if prefix.key else 0
    chosen: dict[str, AnyEntry] = {}
    for entry in entries:
        relative = entry.key[start:]
        if not matches(relative, include) or (relative.endswith("/") and entry.size == 0):
            continue  # the second: what some tools write for an empty folder
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
    """Whether one of the patterns takes the path; `*` stays in one folder level, `**` does not."""
    return any(
        fnmatchcase(relative, pattern)
        and ("**" in pattern or relative.count("/") == pattern.count("/"))
        for pattern in include
    )


def is_safe(relative: str, folder: Path) -> bool:
    """Whether the path stays below the folder, on every system and through every link."""
    if any(part in {"", ".", ".."} for part in relative.split("/")):
        return False
    if any(ord(char) < 32 or char in "\\\x7f" for char in relative):
        return False
    root = folder.resolve()
    target = (root / relative).resolve()
    return target != root and target.is_relative_to(root)


def all_at_once(fetch: Callable[[str], None], names: Iterable[str]) -> None:
    """Run `fetch` for every name, a few at a time; the first error ends it and is raised."""
    with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="transfer") as pool:
        futures = [pool.submit(fetch, name) for name in names]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
        for future in done:
            future.result()


def download(client: S3Client, uri: S3Uri, path: Path, meter: Meter) -> None:
    """Fetch to a neighboring file first, so that `path` is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        client.download_file(uri.bucket, uri.key, str(part), Callback=meter, Config=_config())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def upload(client: S3Client, path: Path, uri: S3Uri, meter: Meter) -> None:
    """Send the file, in parts when it is large."""
    # upload_file would wrap S3's answer in an exception without its code
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
