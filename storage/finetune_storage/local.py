"""A folder of this machine as a bucket, so that the code of pods runs without S3.

`s3://finetune-local/…` is a file below the folder. Every other address is in S3.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from finetune_api.names import LOCAL_BUCKET
from finetune_api.uris import S3Uri
from finetune_storage import transfers
from finetune_storage.client import s3_client
from finetune_storage.errors import AlreadyExists, StorageError, changed_error
from finetune_storage.messages import ProblemContext, StorageProblem
from finetune_storage.multipart import IsDead, PartUpload
from finetune_storage.progress import ProgressCallback, ProgressMeter
from finetune_storage.s3 import Storage, permit
from finetune_storage.versions import ObjectEntry

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from mypy_boto3_s3 import S3Client

THIS_MACHINE = "this machine"
PART = ".finetune-part"  # in the name of an incomplete file


class LocalStorage(Storage):
    """Storage whose files appear completely or not at all, like objects."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._must_prove = False
        self._has_warned = False
        self.endpoint = str(root)
        self.before_write = permit

    @cached_property
    def _client(self) -> S3Client:  # type: ignore[override]
        """The S3 client, made only if an address needs it."""
        return s3_client()

    def _path(self, uri: S3Uri) -> Path | None:
        """The file of an address; None for an address in S3."""
        return self._root / uri.key if uri.bucket == LOCAL_BUCKET else None

    # --- reading ---------------------------------------------------------------------------------

    def open_stream(self, uri: S3Uri, entry: ObjectEntry | None = None) -> io.RawIOBase:
        path = self._path(uri)
        if path is None:
            return super().open_stream(uri, entry)
        with _errors(path):
            return LocalStream(path, entry)

    def read_version(self, uri: S3Uri) -> tuple[bytes, ObjectEntry]:
        path = self._path(uri)
        if path is None:
            return super().read_version(uri)
        with _errors(path), LocalStream(path) as stream:
            return stream.read() or b"", replace(stream.entry, key=uri.key)

    def read_range(
        self, uri: S3Uri, start: int, size: int, entry: ObjectEntry | None = None
    ) -> bytes:
        path = self._path(uri)
        if path is None:
            return super().read_range(uri, start, size, entry)
        with _errors(path), LocalStream(path, entry) as stream:
            return stream.read_at(start, size)

    def head(self, uri: S3Uri) -> ObjectEntry:
        path = self._path(uri)
        if path is None:
            return super().head(uri)
        with _errors(path):
            if path.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            return _entry(uri.key, path)

    def list(self, prefix: S3Uri) -> builtins.list[ObjectEntry]:
        folder = self._path(prefix)
        if folder is None:
            return super().list(prefix)
        with _errors(folder):
            files = (path for path in folder.rglob("*") if path.is_file())
            found = [
                _entry(str(path.relative_to(self._root)), path)
                for path in files
                if PART not in path.name
            ]
        return sorted(found, key=lambda entry: entry.key)

    def pages(self, prefix: S3Uri) -> Iterator[builtins.list[ObjectEntry]]:
        return super().pages(prefix) if self._path(prefix) is None else iter([self.list(prefix)])

    def folders(self, prefix: S3Uri, start: str) -> builtins.list[str]:
        folder = self._path(prefix)
        if folder is None:
            return super().folders(prefix, start)
        if not folder.is_dir():
            return []
        with _errors(folder):
            names = (path.name for path in folder.iterdir() if path.is_dir())
            return sorted(name for name in names if name.startswith(start))

    def download_listed(
        self, uri: S3Uri, entry: ObjectEntry, path: Path, progress: ProgressCallback | None = None
    ) -> None:
        source = self._path(uri)
        if source is None:
            return super().download_listed(uri, entry, path, progress)
        with _errors(source):
            _place(source.resolve(strict=True), path)
            if not entry.is_same_as(_entry(uri.key, source)):
                raise changed_error(str(source), THIS_MACHINE)
        ProgressMeter(entry.size, progress)(entry.size)
        return None

    def download_prefix(
        self,
        uri: S3Uri,
        folder: Path,
        include: Sequence[str] = ("**",),
        progress: ProgressCallback | None = None,
    ) -> builtins.list[str]:
        if self._path(uri) is None:
            return super().download_prefix(uri, folder, include, progress)
        wanted = transfers.choose_files(self.list(uri), uri, folder, include)
        meter = ProgressMeter(sum(entry.size for entry in wanted.values()), progress)
        for relative, entry in wanted.items():
            self.download_listed(S3Uri(uri.bucket, entry.key), entry, folder / relative)
            meter(entry.size)
        return sorted(wanted)

    def needs_space(self, uri: S3Uri) -> bool:
        return self._path(uri) is None  # a file of this machine usually gets a second name

    # --- writing ---------------------------------------------------------------------------------

    def write_bytes(self, uri: S3Uri, data: bytes, *, only_if_absent: bool = False) -> None:
        path = self._path(uri)
        if path is None or only_if_absent:
            return super().write_bytes(uri, data, only_if_absent=only_if_absent)
        self.before_write()
        with _errors(path), _part(path) as part:
            part.write_bytes(data)
            part.replace(path)
        return None

    def create_bytes(self, uri: S3Uri, data: bytes) -> ObjectEntry:
        path = self._path(uri)
        if path is None:
            return super().create_bytes(uri, data)
        self.before_write()
        with _errors(path), _part(path) as part:
            part.write_bytes(data)
            try:
                os.link(part, path)
            except FileExistsError as error:
                context = ProblemContext(str(path))
                raise AlreadyExists.from_problem(StorageProblem.ALREADY_EXISTS, context) from error
        return self.head(uri)

    def replace_bytes(self, uri: S3Uri, data: bytes, entry: ObjectEntry) -> ObjectEntry:
        path = self._path(uri)
        if path is None:
            return super().replace_bytes(uri, data, entry)
        if not self.exists(uri) or not entry.is_same_as(self.head(uri)):
            raise changed_error(str(path), THIS_MACHINE)
        self.write_bytes(uri, data)
        return self.head(uri)

    def has_conditional_writes(self, uri: S3Uri, data: bytes) -> bool:
        return self._path(uri) is not None or super().has_conditional_writes(uri, data)

    def upload_file(self, path: Path, uri: S3Uri, progress: ProgressCallback | None = None) -> None:
        target = self._path(uri)
        if target is None:
            return super().upload_file(path, uri, progress)
        self.before_write()
        with _errors(target):
            _place(path, target)
        size = target.stat().st_size
        ProgressMeter(size, progress)(size)
        return None

    def upload_parts(self, uri: S3Uri) -> PartUpload:
        path = self._path(uri)
        if path is None:
            return super().upload_parts(uri)
        self.before_write()
        return LocalPartUpload(path, self.open_stream)

    def abort_uploads(self, prefix: S3Uri, is_dead: IsDead | None = None) -> int:
        return 0 if self._path(prefix) is not None else super().abort_uploads(prefix, is_dead)

    def delete(self, uri: S3Uri) -> None:
        path = self._path(uri)
        if path is None:
            return super().delete(uri)
        with _errors(path):
            path.unlink(missing_ok=True)
            for folder in path.parents:  # a prefix without objects does not exist
                if folder == self._root:
                    break
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return None


class LocalPartUpload:
    """A PartUpload that appends to a temporary file, which gets its name at the end."""

    def __init__(self, path: Path, open_stream: Callable[[S3Uri], io.RawIOBase]) -> None:
        self._path = path
        self._part = _part_of(path)
        self._open_stream = open_stream
        self._lock = Lock()
        self._has_ended = False

    def add(self, data: bytes) -> None:
        with self._lock, _errors(self._path):
            self._append(data)

    def copy(self, source: S3Uri) -> None:
        with self._lock, self._open_stream(source) as stream, _errors(self._path):
            while block := stream.read(transfers.BLOCK_BYTES):
                self._append(block)

    def complete(self) -> None:
        with self._lock, _errors(self._path):
            self._part.replace(self._path)
            self._has_ended = True

    def abort(self) -> None:
        with self._lock, _errors(self._path):
            self._has_ended = True
            self._part.unlink(missing_ok=True)

    def _append(self, data: bytes) -> None:
        assert not self._has_ended, "the upload has ended"
        self._part.parent.mkdir(parents=True, exist_ok=True)
        with self._part.open("ab") as file:
            file.write(data)


class LocalStream(io.RawIOBase):
    """A file that is read to its end, or raises StorageError if another program changes it."""

    def __init__(self, path: Path, entry: ObjectEntry | None = None) -> None:
        """entry: the version to read; None: any."""
        super().__init__()
        self._path = path
        self._file = path.open("rb", buffering=0)
        self.entry = entry or self._now()
        try:
            self._check()
        except BaseException:
            self._file.close()
            raise

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._file.readinto(buffer)
        if not count:
            self._check()
        return count or 0

    def read_at(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on; fewer if the file ends before."""
        self._file.seek(start)
        found = self._file.read(size)
        self._check()
        return found

    def close(self) -> None:
        self._file.close()
        super().close()

    def _now(self) -> ObjectEntry:
        return _entry_of(str(self._path), os.fstat(self._file.fileno()))

    def _check(self) -> None:
        if not self.entry.is_same_as(self._now()):
            raise changed_error(str(self._path), THIS_MACHINE)


def _entry(key: str, path: Path) -> ObjectEntry:
    return _entry_of(key, path.stat())


def _entry_of(key: str, found: os.stat_result) -> ObjectEntry:
    return ObjectEntry(key, found.st_size, f"{found.st_mtime_ns:x}-{found.st_size:x}")


def _place(source: Path, target: Path) -> None:
    """Give the file a second name if the file system allows it, and copy it otherwise."""
    with _part(target) as part:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
        # `replace` keeps both names if they belong to the same file
        part.unlink(missing_ok=True)


@contextmanager
def _part(path: Path) -> Iterator[Path]:
    """A temporary name next to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name[:100]}{PART}-{uuid.uuid4().hex}")


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise _error(StorageProblem.FILE_MISSING, path, error) from error
    except PermissionError as error:
        raise _error(StorageProblem.FILE_DENIED, path, error) from error
    except OSError as error:
        raise _error(StorageProblem.FILE_UNUSABLE, path, error) from error


def _error(problem: StorageProblem, path: Path, error: OSError) -> StorageError:
    detail = error.strerror or str(error)
    return StorageError.from_problem(problem, ProblemContext(str(path), detail=detail))
