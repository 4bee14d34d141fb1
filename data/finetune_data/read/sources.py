"""Data files on this machine or in S3: single ones, folders, and patterns."""

from __future__ import annotations

import glob
import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, cast

from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_data import failures
from finetune_data.errors import DataError

if TYPE_CHECKING:  # boto3 takes 20 MB of memory, which local files do not need
    from _typeshed import WriteableBuffer

    from finetune_storage.s3 import Storage

ENDINGS = (".csv", ".tsv", ".tab", ".xlsx", ".json", ".jsonl", ".ndjson", ".txt", ".parquet")
AnyPath = TypeVar("AnyPath", Path, PurePosixPath)
BLOCK_BYTES = 1024 * 1024
PACKED = (".gz", ".gzip", ".zst", ".zstd")


class InputFile(Stored):
    """The identity of a data file when it was read."""

    uri: str
    etag: str
    size: int  # bytes, as stored
    sha256: str


class Source(Protocol):
    """A data file, which can be opened again for another pass."""

    name: str  # a path, or s3://...
    size: int  # bytes, as stored

    def open(self) -> BinaryIO:
        """A stream from the beginning."""

    def local_path(self) -> Path:
        """The file on this machine, for formats that need to seek."""


class LocalSource:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self.size = path.stat().st_size
        self._digest: str | None = None

    def open(self) -> BinaryIO:
        try:
            file = self._path.open("rb")
        except OSError as error:
            raise _unreadable(self.name, error) from error
        return cast("BinaryIO", _HashingStream(file, self._set_digest))

    def local_path(self) -> Path:
        return self._path

    @property
    def identity(self) -> InputFile:
        digest = self._digest or _digest_of(self._path)
        return InputFile(uri=self.name, etag="", size=self.size, sha256=digest)

    def _set_digest(self, digest: str) -> None:
        self._digest = digest


class S3Source:
    """An object, which is streamed. Formats that need to seek get a copy in `folder`."""

    def __init__(self, uri: S3Uri, storage: Storage, folder: Path) -> None:
        self.name = str(uri)
        self._uri = uri
        self._storage = storage
        self._folder = folder
        self._entry = storage.head(uri)
        self.size = self._entry.size
        self._digest: str | None = None
        self._copy: Path | None = None

    def open(self) -> BinaryIO:
        stream = self._storage.open_stream(self._uri, self._entry)
        return cast("BinaryIO", _HashingStream(stream, self._set_digest))

    def identify(self) -> None:
        """Make sure that `identity` distinguishes every content of the file.

        That takes a pass over its bytes if the store has no ETags, or weak or changing ones. Raises
        StorageError if the file changes.
        """
        entry, again = self._entry, self._storage.head(self._uri)
        if not entry.is_same_as(again) and entry.is_as_old_as(again):
            self._entry = replace(entry, etag="")
        if not self._entry.strong_etag:
            with self.open() as stream:
                while stream.read(BLOCK_BYTES):
                    pass

    def local_path(self) -> Path:
        if self._copy is None:
            name = f"{hashlib.sha256(self.name.encode()).hexdigest()[:16]}-{Path(self.name).name}"
            self._folder.mkdir(parents=True, exist_ok=True)
            copy = self._folder / name
            with self.open() as stream, copy.open("wb") as file:
                while block := stream.read(BLOCK_BYTES):
                    file.write(block)
            self._copy = copy
        return self._copy

    @property
    def identity(self) -> InputFile:
        """The identity. Its digest is empty until all bytes were read."""
        return InputFile(
            uri=self.name,
            etag=self._entry.strong_etag,
            size=self.size,
            sha256=self._digest or "",
        )

    def _set_digest(self, digest: str) -> None:
        if self._digest not in {None, digest}:  # the store has no ETag that shows it
            from finetune_storage.errors import changed_error

            raise changed_error(self.name, self._storage.endpoint)
        self._digest = digest


class _HashingStream(io.RawIOBase):
    """Returns bytes unchanged, and reports their SHA-256 at the end."""

    def __init__(self, stream: BinaryIO | io.RawIOBase, report: Callable[[str], None]) -> None:
        super().__init__()
        self._stream = stream
        self._report = report
        self._digest = hashlib.sha256()
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        block = self.read(len(view))
        view[: len(block)] = block
        return len(block)

    def read(self, size: int = -1, /) -> bytes:
        block = self._stream.read(size) or b""
        self._digest.update(block)
        self.position += len(block)
        if not block and size != 0:
            self._report(self._digest.hexdigest())
        return block

    def close(self) -> None:
        self._stream.close()
        super().close()


def find_sources(
    addresses: Sequence[str], storage: Storage | None, folder: Path
) -> list[LocalSource | S3Source]:
    """The files of paths, folders, patterns, and objects and prefixes in S3, in order.

    folder: for copies of objects. Raises DataError if there is nothing to read, and StorageError
    for a problem with S3.
    """
    found: list[LocalSource | S3Source] = []
    for address in addresses:
        found += (
            _in_s3(address, storage, folder) if address.startswith("s3://") else _local(address)
        )
    return found


def _local(address: str) -> list[LocalSource | S3Source]:
    path = Path(address).expanduser()
    try:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            return [LocalSource(file) for file in _known(files, address)]
        if path.exists():
            return [LocalSource(path)]
        if glob.has_magic(address):
            names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - absolute patterns too
            matches = sorted(Path(name) for name in names)
            files = [match for match in matches if match.is_file()]
            if files:
                return [LocalSource(file) for file in files]
            raise _not_found(f"no file matches {address}")
    except OSError as error:
        raise _unreadable(address, error) from error
    raise _not_found(f"{address} does not exist")


def _in_s3(address: str, storage: Storage | None, folder: Path) -> list[LocalSource | S3Source]:
    if storage is None:
        raise ValueError(f"{address} requires a storage")
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not glob.has_magic(key) and key and not key.endswith("/"):
        return [S3Source(_parse(address), storage, folder)]
    fixed = key
    if glob.has_magic(key):
        fixed = key[: min(key.find(mark) for mark in "*?[" if mark in key)].rpartition("/")[0]
    prefix = _parse(f"s3://{bucket}/{fixed}".rstrip("/"))
    keys = sorted(entry.key for entry in storage.list(prefix))
    if glob.has_magic(key):
        keys = [each for each in keys if PurePosixPath(each).match(key)]
    else:
        keys = [str(each) for each in _known([PurePosixPath(each) for each in keys], address)]
    if not keys:
        raise _not_found(f"no object matches {address}")
    return [S3Source(_parse(f"s3://{bucket}/{each}"), storage, folder) for each in keys]


def _known(files: list[AnyPath], address: str) -> list[AnyPath]:
    known = [file for file in files if ending_of(file.name) in ENDINGS and file.name[0] != "."]
    if not known:
        raise _not_found(f"{address} has no file with the ending {', '.join(ENDINGS)}")
    return known


def ending_of(name: str) -> str:
    """`.csv` of `train.csv.gz`, in lower case."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in PACKED else path.suffix


def _parse(address: str) -> S3Uri:
    try:
        return S3Uri.parse(address)
    except ValueError as error:
        raise DataError(failures.invalid_address(error)) from error


def _not_found(message: str) -> DataError:
    return DataError(failures.no_data_file(message))


def _unreadable(name: str, error: OSError) -> DataError:
    return _not_found(f"{name} cannot be read: {error.strerror}")


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
