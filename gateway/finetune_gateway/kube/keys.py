"""The API keys in the mounted Secret `finetune-gateway-keys`."""

from __future__ import annotations

import hmac
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from finetune_api.api_keys import KeyRecord, entry_name, hash_key
from finetune_api.api_keys.record import RECORD_BYTES

CHECK_SECONDS = 1.0  # between two checks of the mount: a revoked key is refused after this time
_HIDDEN = "."  # the kubelet's own entries begin with two of them

logger = logging.getLogger(__name__)


class KeyRing:
    """The keys that exist now. Entries that cannot be read are logged once, and ignored."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """folder: has one file for each key. Without it, there are no keys."""
        self._folder = folder
        self._clock = clock
        self._checked = -CHECK_SECONDS
        self._version: object = None
        self._records: dict[str, KeyRecord] = {}
        self._reported: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        self._refresh()
        return len(self._records)

    def find(self, key: str) -> KeyRecord | None:
        """The record of a key, which can be expired; None if there is no such key."""
        self._refresh()
        found = hash_key(key)
        record = self._records.get(entry_name(found))
        if record is None or not hmac.compare_digest(record.sha256, found):
            return None
        return record

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked < CHECK_SECONDS and self._version is not None:
            return
        self._checked = now
        version = self._read_version()
        if version != self._version:
            self._records = self._read()
            self._version = version
            logger.info("API keys in %s: %d", self._folder, len(self._records))

    def _read_version(self) -> object:
        """A value that differs after each change of the folder."""
        try:
            return (self._folder / "..data").readlink()  # the kubelet replaces this link
        except OSError:
            pass
        try:
            with os.scandir(self._folder) as entries:
                return sorted(
                    (entry.name, found.st_mtime_ns, found.st_size, found.st_ino)
                    for entry in entries
                    for found in [entry.stat()]
                )
        except OSError as error:
            self._report("", f"the folder {self._folder} cannot be read: {error}")
            return str(error)

    def _read(self) -> dict[str, KeyRecord]:
        try:
            paths = sorted(self._folder.iterdir())
        except OSError:
            return {}
        records = {}
        for path in paths:
            if path.name.startswith(_HIDDEN):
                continue
            try:
                records[path.name] = KeyRecord.parse(path.name, _read_file(path))
            except (OSError, ValueError) as error:
                self._report(path.name, str(error))
        return records

    def _report(self, name: str, cause: str) -> None:
        if (name, cause) not in self._reported:
            self._reported.add((name, cause))
            logger.warning("API key %s is ignored: %s", name or "(all)", cause)


def _read_file(path: Path) -> bytes:
    """The first bytes of a regular file: more than any record has. Raises OSError."""
    if not path.is_file():  # opening a pipe would wait for its other end
        raise OSError("it is not a file")
    with path.open("rb") as opened:
        return opened.read(RECORD_BYTES + 1)
