"""The threads that wait for the store, and the answers to clients when it fails.

Reads and writes have threads of their own, so that neither many uploads nor many downloads keep the
other ones waiting. Each thread has at most one connection to the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from finetune_api.names import Reason
from finetune_storage.errors import StorageError
from finetune_web.problems import Problem, unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Together less than the connections that a client of the store keeps.
READERS, WRITERS = 12, 12


class Workers:
    """Runs the calls of the store, each of which blocks."""

    def __init__(self, readers: int = READERS, writers: int = WRITERS) -> None:
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="read")
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="write")

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(self._readers, lambda: call(*args, **kwargs))

    async def write(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(self._writers, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """Wait for the calls that have begun."""
        self._readers.shutdown(cancel_futures=True)
        self._writers.shutdown(cancel_futures=True)

    async def _run(self, threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, call)


def is_missing(error: StorageError) -> bool:
    """Whether the object does not exist, while its bucket does."""
    return error.failure.code == Reason.DATA_NOT_FOUND


@contextmanager
def store_problems() -> Iterator[None]:
    """Turn StorageError into the answer 503. The log has the cause, which names addresses."""
    try:
        yield
    except StorageError as error:
        logger.error("the store of files: %s", error)
        raise _problem(error) from error


def _problem(error: StorageError) -> Problem:
    if error.failure.code == Reason.S3_UNAVAILABLE:
        return unavailable("The store of files does not answer. Try again.")
    return unavailable(
        "The gateway cannot use its store of files. Its log has the cause, which an administrator "
        "can correct.",
        seconds=60,
    )
