"""Cancels, pauses, and resumes FineTunes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Literal

from aiohttp import web

from finetune_api.finetune import FineTune
from finetune_api.names import State
from finetune_api.wire import JsonObject
from finetune_gateway.kube_errors import KubeError
from finetune_gateway.routes.context import caller, services
from finetune_gateway.routes.creation import RETRY_COUNT
from finetune_gateway.routes.lookup import asking, find_finetune
from finetune_gateway.wire.finetunes import describe_end, is_ended, parse_finetune
from finetune_web.problems import Problem, invalid

Action = Literal["cancel", "pause", "resume"]
_CHANGES: dict[Action, JsonObject] = {
    "cancel": {"cancel": True},
    "pause": {"suspend": True},
    "resume": {"suspend": False},
}


async def steer(request: web.Request, job_id: str, action: Action) -> FineTune:
    """The FineTune after the change. Raise Problem if it has ended, or cannot be changed."""
    finetune = await find_finetune(request, job_id)
    shown = job_id[:200]
    if _is_done(finetune, action) and request.headers.get(RETRY_COUNT, "0") != "0":
        return finetune  # the answer to the first request was lost
    if is_ended(finetune):
        raise invalid(f"The fine-tune {shown} has {describe_end(finetune)} already.", code="ended")
    if action != "cancel" and finetune.spec.cancel:
        raise invalid(f"The fine-tune {shown} is being cancelled, which is final.", code="ended")
    if action == "resume" and not finetune.spec.suspend:
        raise invalid(f"The fine-tune {shown} is not paused.", code="not_paused")
    cluster, name = services(request).cluster, finetune.metadata.name
    with asking(request, "patch", "finetunes", job_id):
        body = {"spec": _CHANGES[action]}
        changed = await cluster.patch(caller(request), "finetunes", name, body)
    if action == "cancel":
        changed = await _await_end(request, name, changed)
    return parse_finetune(changed)


def _is_done(finetune: FineTune, action: Action) -> bool:
    """Whether the FineTune is as the action leaves it."""
    if action == "cancel":
        return finetune.status.state == State.CANCELLED
    return not is_ended(finetune) and finetune.spec.suspend == (action == "pause")


async def _await_end(request: web.Request, name: str, last: JsonObject) -> JsonObject:
    """The FineTune once it has ended, or as it is after a few seconds.

    Nothing here fails: the cancellation is accepted.
    """
    parts = services(request)
    with suppress(TimeoutError, KubeError, Problem):
        async with (
            asyncio.timeout(parts.settings.cancel_seconds),
            aclosing(parts.cluster.follow(caller(request), "finetunes", name)) as changes,
        ):
            async for found in changes:
                if found is None:
                    break
                is_over = is_ended(parse_finetune(found))
                last = found
                if is_over:
                    break
    return last
