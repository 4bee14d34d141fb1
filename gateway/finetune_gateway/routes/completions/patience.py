"""Work for a client, for as long as the client listens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")
GLANCE_SECONDS = 1.0  # between two checks whether the client is there


def has_left(request: web.Request) -> bool:
    """Whether the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()


async def while_heard(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work, which is cancelled when the client leaves (ConnectionResetError)."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=GLANCE_SECONDS)
            if not task.done() and has_left(request):
                raise ConnectionResetError("the client has left")
        return task.result()
    finally:
        await discard(task)


async def discard(task: asyncio.Task[Any]) -> None:
    """Cancel the task unless it is done, and wait for its end."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
