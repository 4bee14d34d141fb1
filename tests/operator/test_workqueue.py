"""The work queue: deduplication, priorities, one worker per key, and back-off."""

import asyncio

import pytest

from finetune_operator.handlers.workqueue import COMPLETION, CREATION, WorkQueue


async def drain(queue: WorkQueue[str], count: int) -> list[str]:
    found = []
    for _ in range(count):
        key = await asyncio.wait_for(queue.take(), 1)
        queue.done(key)
        found.append(key)
    return found


async def test_a_waiting_key_is_not_added_twice() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    queue.add("a")
    assert await drain(queue, 2) == ["a", "b"]
    assert len(queue) == 0


async def test_completions_come_before_creations() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("new", CREATION)
    queue.add("ended", COMPLETION)
    queue.add("newer", CREATION)
    assert await drain(queue, 3) == ["ended", "new", "newer"]


async def test_a_worker_for_creations_takes_completions_if_there_are_no_creations() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key, urgency in (("new", CREATION), ("ended", COMPLETION), ("newer", CREATION)):
        queue.add(key, urgency)
    assert [await queue.take(CREATION) for _ in range(3)] == ["new", "newer", "ended"]


async def test_a_waiting_key_becomes_urgent() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("first", CREATION)
    queue.add("second", CREATION)
    queue.add("second", COMPLETION)
    assert await drain(queue, 2) == ["second", "first"]
    assert len(queue) == 0


async def test_a_busy_key_is_handed_out_again_only_when_it_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    queue.done("a")
    assert await drain(queue, 1) == ["a"]


async def test_a_requeue_comes_later_and_only_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.done(await queue.take(), requeue_after=0.05)
    queue.add_after("a", 30)
    assert await drain(queue, 1) == ["a"]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.take(), 0.1)


async def test_a_delayed_key_waits_behind_triggers_and_the_rest_of_a_step_does_not() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("looked at", "half done"):
        queue.add(key)
        await queue.take()
    queue.done("looked at", requeue_after=0.01)
    await asyncio.sleep(0.05)
    queue.add("new", CREATION)
    queue.add("ended", COMPLETION)
    queue.done("half done", requeue_after=0)
    assert await drain(queue, 4) == ["ended", "half done", "looked at", "new"]


async def test_failures_back_off_and_a_success_forgets_them() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waits = []
    for _ in range(9):
        queue.add("a")
        waits.append(queue.failed(await queue.take()))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    queue.add("a")
    queue.done(await queue.take())
    queue.add("a")
    assert queue.failed(await queue.take()) == 1


async def test_a_refused_key_waits_for_its_back_off_unless_its_finetune_changes() -> None:
    """The deletion of its own Job would otherwise start the next try at once, for ever."""
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.refused(await queue.take()) == 1
    queue.add("a", COMPLETION)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(queue.take(), 0.05)
    queue.add("a", CREATION)
    assert queue.refused(await asyncio.wait_for(queue.take(), 1)) == 2
    queue.add("a", CREATION)
    queue.done(await asyncio.wait_for(queue.take(), 1))
    queue.add("a", COMPLETION)
    assert await drain(queue, 1) == ["a"]


async def test_a_refused_key_is_due_at_its_deadline() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.refused(await queue.take(), at_most=0.01) == 0.01
    assert queue.failures("a") == 1
    assert await drain(queue, 1) == ["a"]
    assert queue.failures("a") == 0
