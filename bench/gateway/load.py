"""Requests to the gateway and to the server behind it, in turns, and their times."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp

from bench.gateway.peers import MODEL, PARTS
from bench.gateway.processes import TOKEN, Subject

BODY = {"model": MODEL, "prompt": "Where is my parcel? ->", "max_tokens": 60, "temperature": 0}
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
WARM_UP = 50  # requests


@dataclass(frozen=True)
class Pair:
    """Milliseconds of the same requests: through the gateway, and to the server directly."""

    gateway: list[float]
    direct: list[float]

    def added(self, share: float) -> float:
        """The difference of the percentiles."""
        return percentile(self.gateway, share) - percentile(self.direct, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile, which is a measured value."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


async def completions(subject: Subject, number: int) -> Pair:
    """One after the other, in turns, so that both see the same machine."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for _ in range(WARM_UP):
            await _complete(session, subject.gateway)
            await _complete(session, subject.direct)
        pair = Pair([], [])
        for _ in range(number):
            pair.gateway.append(await _complete(session, subject.gateway))
            pair.direct.append(await _complete(session, subject.direct))
        return pair


async def streams(subject: Subject, number: int) -> tuple[Pair, Pair]:
    """The times to the first part, and to the end."""
    first, whole = Pair([], []), Pair([], [])
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for _ in range(number):
            for url, firsts, wholes in (
                (subject.gateway, first.gateway, whole.gateway),
                (subject.direct, first.direct, whole.direct),
            ):
                begin = time.perf_counter()
                async with session.post(
                    f"{url}/completions", json={**BODY, "stream": True}
                ) as response:
                    await response.content.readline()
                    firsts.append((time.perf_counter() - begin) * 1000)
                    text = await response.read()
                wholes.append((time.perf_counter() - begin) * 1000)
                if text.count(b"data: ") < PARTS:
                    raise RuntimeError(f"{url} sent {text[-200:]!r}")
    return first, whole


async def at_once(subject: Subject, clients: int, number: int) -> float:
    """Completions through the gateway in a second, with this number of clients."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def client() -> None:
            for _ in range(number):
                await _complete(session, subject.gateway)

        begin = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        return clients * number / (time.perf_counter() - begin)


async def _complete(session: aiohttp.ClientSession, url: str) -> float:
    """Milliseconds of one request."""
    begin = time.perf_counter()
    async with session.post(f"{url}/completions", json=BODY) as response:
        text = await response.read()
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {text[:200]!r}")
    return (time.perf_counter() - begin) * 1000
