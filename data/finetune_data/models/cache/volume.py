"""The folder of the cache, whose contents other tenants may have written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_data.models.cache.locks import CacheError, FileLock

LAYOUT = "v1"
FOLDER_MODE = 0o750
_KEY = re.compile(r"[0-9a-f]{64}")
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
BLOCK = 512  # of st_blocks


@dataclass(frozen=True)
class CacheVolume:
    """The paths in the cache, and the owners whose files are accepted."""

    root: Path
    max_bytes: int | None  # of all models; None: as many as the volume holds
    free_share: float  # of the file system, which models leave free
    is_writable: bool
    owners: frozenset[int]

    @classmethod
    def open(cls, root: Path, max_bytes: int | None = None, free_share: float = 0) -> CacheVolume:
        """Open the folder, and create its layout. Raises CacheError for an unusable one."""
        top = root / LAYOUT
        layout = (top, top / "entries", top / "locks")
        is_writable = True
        try:
            # the owner of the folder could replace everything in it anyway
            owners = {0, os.geteuid(), root.stat().st_uid}
            for folder in layout:
                folder.mkdir(FOLDER_MODE, exist_ok=True)
                if folder.is_symlink():
                    raise CacheError(f"{folder} is a link")
            owners.add(_owner_of_new_files(top))
        except OSError as error:
            if error.errno not in _DENIED or not all(folder.is_dir() for folder in layout):
                raise CacheError(_unwritable(root, error)) from error
            is_writable = False
        volume = cls(root, max_bytes, free_share, is_writable, frozenset(owners))
        for folder in layout:
            if not volume.is_own_folder(folder):
                raise CacheError(f"{folder} belongs to another user, or is not a folder")
        return volume

    def entry(self, key: str) -> Path:
        return self.root / LAYOUT / "entries" / key

    def entry_keys(self) -> list[str]:
        """The keys of all entries, complete or not."""
        with os.scandir(self.root / LAYOUT / "entries") as found:
            return sorted(item.name for item in found if _KEY.fullmatch(item.name))

    def lock(self, name: str) -> FileLock | None:
        """Open a lock; None if it does not exist in a cache that cannot be written."""
        path = self.root / LAYOUT / "locks" / name
        return FileLock.open(path, is_writable=self.is_writable)

    def own_file(self, path: Path) -> os.stat_result | None:
        """The status of a regular file with an accepted owner; None for anything else."""
        status = _status(path)
        is_own = status is not None and status.st_uid in self.owners
        return status if is_own and status and stat.S_ISREG(status.st_mode) else None

    def is_own_folder(self, path: Path) -> bool:
        """Whether it is a folder, not a link to one, with an accepted owner."""
        status = _status(path)
        return status is not None and status.st_uid in self.owners and stat.S_ISDIR(status.st_mode)

    def free_bytes(self) -> int:
        """The space that models may still use."""
        usage = shutil.disk_usage(self.root)
        return int(usage.free - self.free_share * usage.total)


def allocated_bytes(path: Path) -> int:
    """The disk space of everything below a folder. Follows no link; 0 if it is no folder."""
    status = _status(path)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return 0
    return sum(status.st_blocks * BLOCK for status in _below(path))


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with its contents, and nothing behind a link."""
    status = _status(path)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _below(path: Path) -> Iterator[os.stat_result]:
    try:
        with os.scandir(path) as found:
            for item in found:
                status = item.stat(follow_symlinks=False)
                yield status
                if stat.S_ISDIR(status.st_mode):
                    yield from _below(Path(item.path))
    except (FileNotFoundError, NotADirectoryError):
        return  # another pod removes it at this moment


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _owner_of_new_files(folder: Path) -> int:
    """A network file system may map this process to another user."""
    path = folder / f".probe-{uuid.uuid4().hex}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        return os.fstat(descriptor).st_uid
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _unwritable(root: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in _DENIED:
        return (
            f"user {os.geteuid()} cannot write to {root} ({reason}): give the folder to this user "
            "and group"
        )
    return f"{root} cannot be used ({reason})"
