"""Locks on files of the cache. The kernel releases them when their process ends, in any way."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Self

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
# A pipe in the place of a lock must not block the process, and a link must not be followed.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class CacheError(Exception):
    """The cache cannot be used. The message is a clause that says why."""


class FileLock:
    """An open lock file. Close it to release the lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: Path, *, is_writable: bool) -> FileLock | None:
        """Open, or create if it is writable; None for a file that does not exist."""
        flags = _FLAGS | (os.O_RDWR | os.O_CREAT if is_writable else os.O_RDONLY)
        try:
            descriptor = os.open(path, flags, 0o640)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CacheError(f"{path} is not a file")
        return cls(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def try_shared(self) -> bool:
        """Whether the lock is now held together with others."""
        return self._try(fcntl.LOCK_SH)

    def try_exclusive(self) -> bool:
        """Whether the lock is now held, and no one else holds it."""
        return self._try(fcntl.LOCK_EX)

    def touch(self) -> None:
        """Set the time of the last use, or show that the holder makes progress."""
        os.utime(self._descriptor)

    def used_at(self) -> int:
        """Nanoseconds since 1970."""
        return os.fstat(self._descriptor).st_mtime_ns

    def close(self) -> None:
        os.close(self._descriptor)

    def _try(self, operation: int) -> bool:
        try:
            fcntl.flock(self._descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                raise CacheError(f"the volume does not support file locks ({error})") from error
            raise
        return True
