"""A limit on what a library may allocate in this process while it reads a hostile file."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def limited_data(bytes_more: int) -> Iterator[None]:
    """Let allocations beyond what this process has fail with MemoryError. It costs microseconds.

    It is the soft RLIMIT_DATA of the process, which also counts threads. Systems without /proc or
    such a limit have none.
    """
    former = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, ValueError, IndexError):
        yield
        return
    most = pages * resource.getpagesize() + bytes_more
    lower = [limit for limit in (most, *former) if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (min(lower), former[1]))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, former)


def limited_items(items: Iterable[Item], bytes_more: int) -> Iterator[Item]:
    """The items, each of which is made with limited data."""
    source = iter(items)
    while True:
        with limited_data(bytes_more):
            try:
                item = next(source)
            except StopIteration:
                return
        yield item
