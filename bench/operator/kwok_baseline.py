"""Measures the control plane without load: the number of pods per second that kwok simulates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.operator import audit
from bench.operator.control_plane import NAMESPACE, NODES, started
from bench.operator.runs import AT_ONCE, kubeconfig
from bench.table import Line
from finetune_api import names
from finetune_operator.kube import paths
from finetune_operator.kube.client import Client

if TYPE_CHECKING:
    from bench.operator.sections import Settings

PODS = 1000
PATIENCE_SECONDS = 300


def kwok(settings: Settings) -> Iterator[Line]:
    """Pods with a node: without Jobs, scheduler, and watches."""
    settings.say(f"kwok: {PODS} pods")
    with started() as (plane, team), kubeconfig(str(plane.kubeconfig)):
        asyncio.run(_create())
        end = time.monotonic() + PATIENCE_SECONDS
        while len(_ended(list(audit.requests(plane.audit_log, NAMESPACE)))) < PODS:
            if time.monotonic() > end:
                raise RuntimeError(f"kwok did not end its pods: {team('get', 'pods')[-500:]}")
            time.sleep(1)
        found = list(audit.requests(plane.audit_log, NAMESPACE))
    made = [one.at for one in found if (one.verb, one.resource) == ("create", "pods")]
    seconds = max(_ended(found).values()) - min(made)
    yield Line("floor", "kwok without load, pods", [PODS / seconds], "pods/s")


def _ended(found: list[audit.Request]) -> dict[str, float]:
    """The time of the last status of each pod that kwok reported twice, as ready and as ended."""
    reported: dict[str, list[float]] = {}
    for one in found:
        if one.agent == "kwok" and one.resource == "pods/status":
            reported.setdefault(one.name, []).append(one.at)
    return {name: times[-1] for name, times in reported.items() if len(times) > 1}


async def _create() -> None:
    turns = asyncio.Semaphore(AT_ONCE)
    async with Client() as client:

        async def one(number: int) -> None:
            async with turns:
                await client.create(paths.core(NAMESPACE, "pods"), _pod(number))

        await asyncio.gather(*map(one, range(PODS)))


def _pod(number: int) -> dict[str, Any]:
    labels = {names.LABEL_COMPONENT: names.COMPONENT_PREPARE}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"bare-{number}", "labels": labels},
        "spec": {
            "nodeName": f"kwok-{number % NODES}",
            "containers": [{"name": names.CONTAINER, "image": "registry/prepare:1"}],
        },
    }
