"""The models in memory: a few at a time, and one generation at a time for each.

A model has one thread, which loads it and generates with it. If no place is free for a requested
model, the least recently used model goes: at once if it is idle. Otherwise, it completes the
requests that it has, and further ones wait until it has a place again. Everything but the work in
the threads happens in the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from finetune_serving import metrics
from finetune_serving.models.addresses import ModelAddress
from finetune_serving.models.generating import BrokenModelError
from finetune_serving.problems import busy, loading

logger = logging.getLogger(__name__)


class Closeable(Protocol):
    """A model in memory. Its methods are called in the thread that loaded it."""

    def close(self) -> None: ...


Model = TypeVar("Model", bound=Closeable)
Result = TypeVar("Result")


class Place(Generic[Model]):
    """A requested model: it waits for a place, loads, is ready, or leaves."""

    def __init__(self, address: ModelAddress) -> None:
        self.address = address
        self.requests = 0  # admitted and not answered
        self.used_at = 0
        self.is_leaving = False
        self.model: Model | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"model-{address.name[:32]}")
        self.arrival: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        return self.model is not None

    async def wait(self, seconds: float) -> None:
        """Until the model is loaded. Raises Problem; the load continues after a timeout."""
        assert self.arrival is not None
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(self.arrival)
        except TimeoutError:
            raise loading(self.address.name, seconds) from None


class ModelPool(Generic[Model]):
    """Loads models on demand. Close it."""

    def __init__(self, load: Callable[[ModelAddress], Model], *, keep: int, queue: int) -> None:
        """keep: models in memory. queue: requests that wait for one model."""
        self._load = load
        self._keep = keep
        self._queue = queue
        self._places: dict[ModelAddress, Place[Model]] = {}
        self._taken: list[Place[Model]] = []  # they load, are ready, or leave
        self._door = asyncio.Lock()  # of those that wait for a place, in order
        self._changed = asyncio.Event()
        self._uses = 0

    @property
    def loaded(self) -> Sequence[ModelAddress]:
        return [place.address for place in self._taken if place.is_ready]

    @contextmanager
    def admitted(self, address: ModelAddress) -> Iterator[Place[Model]]:
        """One request, until the end of the block. Raises Problem if too many wait."""
        place = self._places.get(address)
        if place is None or place.is_leaving:
            outside = sum(it.requests for it in self._places.values() if it not in self._taken)
            if outside >= self._queue:
                raise busy(address.name, outside)
            place = self._places[address] = Place(address)
            if len(self._taken) < self._keep and not self._door.locked():
                self._taken.append(place)
            place.arrival = asyncio.create_task(self._arrive(place))
            place.arrival.add_done_callback(_retrieve)
        elif place.requests > self._queue:  # one of them is not waiting
            raise busy(address.name, place.requests - 1)
        place.requests += 1
        self._touch(place)
        try:
            yield place
        finally:
            place.requests -= 1
            self._touch(place)
            self._changed.set()

    async def run(self, place: Place[Model], job: Callable[[Model], Result]) -> Result:
        """The result of a job in the thread of a loaded model, after those before it."""
        model = place.model
        assert model is not None
        try:
            return await asyncio.get_running_loop().run_in_executor(place.thread, job, model)
        except BrokenModelError as error:
            self._forget(place)
            raise error.problem from error

    async def close(self) -> None:
        """Unload all models. There are no requests any more."""
        for place in [*self._places.values(), *self._taken]:
            if place.arrival is not None and not place.is_ready:
                place.arrival.cancel()
            place.thread.shutdown(wait=False, cancel_futures=True)
        self._places.clear()

    def _touch(self, place: Place[Model]) -> None:
        self._uses += 1
        place.used_at = self._uses

    async def _arrive(self, place: Place[Model]) -> None:
        """Take a place, and load the model."""
        try:
            if place not in self._taken:
                await self._take(place)
            start = time.monotonic()
            place.model = await asyncio.get_running_loop().run_in_executor(
                place.thread, self._load, place.address
            )
        except BaseException:
            self._forget(place)
            if place in self._taken:
                self._taken.remove(place)
            place.thread.shutdown(wait=False)
            self._changed.set()
            raise
        seconds = time.monotonic() - start
        metrics.LOAD_SECONDS.observe(seconds)
        metrics.LOADED.set(len(self.loaded))
        logger.info("loaded %s in %.1f s", place.address.name, seconds)
        self._changed.set()

    async def _take(self, place: Place[Model]) -> None:
        """Wait for a place."""
        async with self._door:
            while len(self._taken) >= self._keep:
                await self._free_one()
            self._taken.append(place)
            for other in self._taken:  # it may stay, unless it was replaced
                other.is_leaving = self._places.get(other.address) is not other

    async def _free_one(self) -> None:
        """Unload an idle model, or wait for a change after asking one to leave."""
        ready = sorted(
            (place for place in self._taken if place.is_ready),
            key=lambda place: (not place.is_leaving, place.used_at),
        )
        idle = next((place for place in ready if not place.requests), None)
        if idle is not None:
            await self._unload(idle)
            return
        if ready and not any(place.is_leaving for place in ready):
            ready[0].is_leaving = True
        self._changed.clear()
        await self._changed.wait()

    async def _unload(self, place: Place[Model]) -> None:
        self._forget(place)
        model = place.model
        assert model is not None
        await asyncio.get_running_loop().run_in_executor(place.thread, model.close)
        place.model = None
        place.thread.shutdown(wait=False)
        self._taken.remove(place)
        metrics.LOADED.set(len(self.loaded))
        logger.info("unloaded %s", place.address.name)

    def _forget(self, place: Place[Model]) -> None:
        """New requests get another place."""
        place.is_leaving = True
        if self._places.get(place.address) is place:
            del self._places[place.address]


def _retrieve(arrival: asyncio.Task[None]) -> None:
    """The error of a load without a request is in no one's answer."""
    if not arrival.cancelled():
        arrival.exception()
