"""Which models are in memory, with models that load and generate when the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.generating import BrokenModelError
from finetune_serving.models.pool import ModelPool
from finetune_serving.problems import unusable
from finetune_web.problems import Problem, invalid

SECONDS = 10.0  # for everything that happens soon


class Held:
    """A model. Its jobs wait for `go`."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.thread = threading.get_ident()
        self.go = threading.Event()
        self.go.set()

    def job(self) -> str:
        assert threading.get_ident() == self.thread
        assert self.go.wait(SECONDS)
        return self.name

    def close(self) -> None:
        assert threading.get_ident() == self.thread
        self.log.append(f"-{self.name}")


class Pool:
    """A pool with a log of loads and unloads."""

    def __init__(self, keep: int = 2, queue: int = 32) -> None:
        self.log: list[str] = []
        self.models: dict[str, Held] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.pool: ModelPool[Held] = ModelPool(self._load, keep=keep, queue=queue)

    def _load(self, address: ModelAddress) -> Held:
        assert self.gate.wait(SECONDS)
        if address.name == "bad":
            raise unusable("it is broken")
        self.log.append(f"+{address.name}")
        self.models[address.name] = Held(address.name, self.log)
        return self.models[address.name]

    async def ask(self, name: str, job: Callable[[Held], str] = Held.job) -> str:
        with self.pool.admitted(ModelAddress(name, Path(name))) as place:
            await place.wait(SECONDS)
            return await self.pool.run(place, job)


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not check():  # noqa: ASYNC110 - a condition of threads
            await asyncio.sleep(0.005)


async def test_two_of_three_models_stay_and_the_least_recently_used_one_goes() -> None:
    pool = Pool()
    for name in ("a", "b", "a", "c", "a", "b"):
        assert await pool.ask(name) == name
    assert pool.log == ["+a", "+b", "-b", "+c", "-c", "+b"]
    assert {address.name for address in pool.pool.loaded} == {"a", "b"}
    await pool.pool.close()


async def test_a_model_that_generates_stays_until_it_has_answered_all_that_it_has() -> None:
    pool = Pool(keep=1)
    await pool.ask("a")
    pool.models["a"].go.clear()
    first = [asyncio.create_task(pool.ask("a")) for _ in range(3)]
    await asyncio.sleep(0.02)
    other = asyncio.create_task(pool.ask("b"))
    await asyncio.sleep(0.02)
    later = asyncio.create_task(pool.ask("a"))  # after b, although a is still there
    await asyncio.sleep(0.02)
    assert pool.log == ["+a"]
    pool.models["a"].go.set()
    assert await asyncio.gather(*first, other, later) == ["a", "a", "a", "b", "a"]
    assert pool.log == ["+a", "-a", "+b", "-b", "+a"]


async def test_a_full_queue_is_429_and_is_free_again_after_an_answer() -> None:
    pool = Pool(queue=2)
    await pool.ask("a")
    pool.models["a"].go.clear()
    waiting = [asyncio.create_task(pool.ask("a")) for _ in range(3)]
    await asyncio.sleep(0.02)
    with pytest.raises(Problem) as caught:
        await pool.ask("a")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (429, "5")
    assert await pool.ask("b") == "b"
    pool.models["a"].go.set()
    assert await asyncio.gather(*waiting) == ["a"] * 3
    assert await pool.ask("a") == "a"


async def test_requests_for_many_models_without_a_place_are_bounded() -> None:
    pool = Pool(keep=1, queue=3)
    pool.gate.clear()
    tasks = [asyncio.create_task(pool.ask(name)) for name in "abcd"]
    await asyncio.sleep(0.02)
    with pytest.raises(Problem) as caught:
        await pool.ask("e")
    assert caught.value.status == 429
    pool.gate.set()
    assert await asyncio.gather(*tasks) == [*"abcd"]


async def test_a_load_is_held_for_some_time_and_continues_without_its_request() -> None:
    pool = Pool()
    pool.gate.clear()
    with (
        pytest.raises(Problem) as caught,
        pool.pool.admitted(ModelAddress("a", Path("a"))) as place,
    ):
        await place.wait(0.05)
    assert (caught.value.status, caught.value.code) == (409, "model_loading")
    assert caught.value.headers == {"Retry-After": "5", "x-should-retry": "true"}
    pool.gate.set()
    await until(lambda: bool(pool.pool.loaded))
    assert await pool.ask("a") == "a"
    assert pool.log == ["+a"]


async def test_a_model_that_cannot_be_loaded_is_an_error_for_all_and_takes_no_place() -> None:
    pool = Pool(keep=1)
    for _ in range(2):
        found = await asyncio.gather(pool.ask("bad"), pool.ask("bad"), return_exceptions=True)
        assert [str(error) for error in found] == ["it is broken"] * 2
    assert await pool.ask("a") == "a"


async def test_a_model_whose_tokenizer_is_lost_is_loaded_again() -> None:
    def fail(model: Held) -> str:
        raise BrokenModelError(invalid("lost"))

    pool = Pool()
    await pool.ask("a")
    with pytest.raises(Problem, match="lost"):
        await pool.ask("a", fail)
    await pool.ask("a")
    await pool.ask("b")
    assert pool.log == ["+a", "+a", "-a", "+b"]


async def test_a_request_that_leaves_does_not_run() -> None:
    pool = Pool()
    await pool.ask("a")
    pool.models["a"].go.clear()
    first, second = (asyncio.create_task(pool.ask("a")) for _ in range(2))
    ran: list[str] = []
    third = asyncio.create_task(pool.ask("a", lambda model: ran.append("x") or "x"))  # type: ignore[func-returns-value]
    await asyncio.sleep(0.02)
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    pool.models["a"].go.set()
    assert await asyncio.gather(first, second) == ["a", "a"]
    assert ran == []
