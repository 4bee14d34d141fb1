"""Makes room in the cache: the least recently used models that no pod uses are removed."""

from __future__ import annotations

import contextlib

from finetune_data.models.cache.entry import EXPECTED, MARKER, read_own
from finetune_data.models.cache.locks import CacheError, FileLock
from finetune_data.models.cache.volume import CacheVolume, allocated_bytes, remove

MOST_BYTES = 2**50  # of one model: a larger reservation is not ours


def make_room(volume: CacheVolume, needed: int, own_key: str) -> None:
    """Remove models until `needed` more bytes fit. Call it with the lock `space`.

    own_key: of the model that needs the space. Raises CacheError, and removes nothing, if removing
    every unused model would not be enough.
    """
    keys = [key for key in volume.entry_keys() if key != own_key]
    reserved = sum(_reserved_bytes(volume, key) for key in keys)
    free = volume.free_bytes() - reserved
    if volume.max_bytes is not None:
        used = sum(allocated_bytes(volume.entry(key)) for key in volume.entry_keys())
        free = min(free, volume.max_bytes - used - reserved)
    with contextlib.ExitStack() as locks:
        victims: list[str] = []
        for key in sorted(keys, key=lambda key: _used_at(volume, key)):
            if free >= needed:
                break
            if (lock := _lock_unused(volume, key)) is not None:
                locks.enter_context(lock)
                victims.append(key)
                free += allocated_bytes(volume.entry(key))
        if free < needed:
            raise CacheError(
                f"the base model needs {needed / 1e9:,.1f} GB, but {volume.root} has only "
                f"{max(0, free) / 1e9:,.1f} GB for it{_limit(volume)}, even without the models "
                "that no pod uses"
            )
        for key in victims:
            if volume.is_own_folder(volume.entry(key)):
                remove(volume.entry(key) / MARKER)  # first: what is left is incomplete
            remove(volume.entry(key))
            print(f"removed an unused base model from the cache: {key}", flush=True)


def _limit(volume: CacheVolume) -> str:
    return "" if volume.max_bytes is None else f" (of at most {volume.max_bytes / 1e9:,.1f} GB)"


def _reserved_bytes(volume: CacheVolume, key: str) -> int:
    """The bytes that a download of another pod still needs."""
    expected = read_own(volume, volume.entry(key) / EXPECTED)
    if not expected.isdigit():
        return 0
    with contextlib.ExitStack() as locks:
        lock = volume.lock(f"{key}.download")
        if lock is None or locks.enter_context(lock).try_exclusive():
            return 0  # the pod that wrote it has ended
    present = allocated_bytes(volume.entry(key))
    return max(0, min(int(expected[:20]), MOST_BYTES) - present)


def _used_at(volume: CacheVolume, key: str) -> int:
    lock = volume.lock(f"{key}.use")
    if lock is None:
        return 0
    with lock:
        return lock.used_at()


def _lock_unused(volume: CacheVolume, key: str) -> FileLock | None:
    """The exclusive lock of a model that no pod uses; None for a model in use."""
    lock = volume.lock(f"{key}.use")
    if lock is None:
        return None
    if lock.try_exclusive():
        return lock
    lock.touch()  # it is used now, whenever its pod started
    lock.close()
    return None
