"""Uploads count against the quota of the namespace."""

from __future__ import annotations

import asyncio

import pytest

from finetune_gateway.files.quota import KEPT_SECONDS, Quota, Usage
from finetune_web.problems import Problem


class Store:
    """A store whose usage a test sets, with a clock."""

    def __init__(self, size: int = 0, objects: int = 0) -> None:
        self.usage = Usage(size, objects)
        self.listings = 0
        self.now = 1000.0

    async def measure(self) -> Usage:
        self.listings += 1
        await asyncio.sleep(0)
        return self.usage

    def quota(self, most_bytes: int = 100, most_objects: int = 10) -> Quota:
        return Quota(most_bytes, most_objects, self.measure, lambda: self.now)


async def test_a_file_that_fits_is_admitted() -> None:
    quota = Store(size=60).quota()
    await quota.admit(40)
    with pytest.raises(Problem, match="The files take 60 of 100 bytes") as caught:
        await quota.admit(41)
    assert caught.value.code == "file_quota_exceeded"


async def test_without_a_limit_everything_fits() -> None:
    quota = Store(size=10**15).quota(most_bytes=0)
    await quota.admit(10**12)
    quota.take(10**12)


async def test_the_store_is_listed_once_in_thirty_seconds_also_for_many_uploads() -> None:
    store = Store()
    quota = store.quota()
    await asyncio.gather(*(quota.admit(1) for _ in range(20)))
    assert store.listings == 1
    store.now += KEPT_SECONDS - 1
    await quota.admit(1)
    assert store.listings == 1
    store.now += 1
    await quota.admit(1)
    assert store.listings == 2


async def test_bytes_that_arrive_at_the_same_time_count() -> None:
    quota = Store(size=50).quota()
    await quota.admit(0)
    quota.take(30)
    with pytest.raises(Problem):
        quota.take(21)
    quota.take(20)
    quota.settle(20, is_stored=False)
    quota.settle(30, is_stored=True)
    await quota.admit(20)
    with pytest.raises(Problem):
        await quota.admit(21)


async def test_deleted_files_make_room_at_once() -> None:
    store = Store(size=100)
    quota = store.quota()
    with pytest.raises(Problem):
        await quota.admit(1)
    store.usage = Usage(50)
    quota.forget()
    await quota.admit(50)


async def test_the_number_of_files_has_a_limit() -> None:
    with pytest.raises(Problem, match="There are 10 files") as caught:
        await Store(objects=10).quota(most_bytes=0).admit(1)
    assert caught.value.code == "too_many_files"


async def test_a_store_that_cannot_be_listed_is_asked_again() -> None:
    answers = [OSError("away"), Usage()]

    async def measure() -> Usage:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    quota = Quota(100, 10, measure)
    with pytest.raises(OSError, match="away"):
        await quota.admit(1)
    await quota.admit(1)
