"""Expensive reads take a small share of the time, and answers are kept meanwhile."""

import pytest

from finetune_operator.kube.rare_reads import KEPT, SHARE, RareReads


class Server:
    """Answers with the number of the read, after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.now = 0.0
        self.seconds = seconds
        self.reads = 0

    async def read(self) -> int:
        self.reads += 1
        self.now += self.seconds
        return self.reads


async def test_a_read_is_followed_by_a_break_in_proportion_to_its_time() -> None:
    server = Server(0.1)
    rare = RareReads(lambda: server.now)
    assert await rare.get("a", server.read) == 1
    server.now += SHARE * 0.1 - 0.01
    assert await rare.get("a", server.read) == 1
    assert await rare.get("b", server.read) is None  # never read
    server.now += 0.02
    assert await rare.get("b", server.read) == 2
    server.now += SHARE * 0.1 + 0.01
    assert await rare.get("a", server.read) == 3


async def test_thousands_of_objects_take_a_bounded_share_of_the_time() -> None:
    server = Server(0.1)
    rare = RareReads(lambda: server.now)
    while server.now < 100:
        for number in range(1000):
            await rare.get(str(number), server.read)
        server.now += 1
    assert 40 <= server.reads <= 60
    assert len(rare._known) <= KEPT


async def test_a_read_that_fails_raises_and_the_next_one_asks_again() -> None:
    server = Server(0.1)
    rare = RareReads(lambda: server.now)

    async def fail() -> int:
        await server.read()
        raise OSError

    with pytest.raises(OSError):
        await rare.get("a", fail)
    server.now += SHARE * 0.1 + 0.01
    assert await rare.get("a", server.read) == 2
