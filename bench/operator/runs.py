"""Runs the script or the operator on a new control plane, and collects the result."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import machine
from bench.operator import audit, operator_process
from bench.operator.control_plane import NAMESPACE, KwokControlPlane, started
from bench.operator.objects import a_spec
from bench.operator.operator_process import OperatorProcess, installed
from bench.operator.timelines import Timeline, timelines_of_operator, timelines_of_script
from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.kube import paths
from finetune_operator.kube.client import Client
from tests.support.kubectl import Kubectl

AT_ONCE = 32  # concurrent requests of the user who creates FineTunes
GIVEN_UP_SECONDS = 900
SILENCE_SECONDS = 1.5
APISERVER = "kube-apiserver"


@dataclass(frozen=True)
class Run:
    """The result of a run. CPU is in seconds, for the operator or script and for the API server."""

    timelines: dict[str, Timeline]
    writes: Counter[str]
    reads: Counter[str]
    seconds: float  # until the last one has ended
    apiserver_seconds: float
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def planes(**settings: Any) -> Iterator[tuple[KwokControlPlane, Kubectl, OperatorProcess]]:
    """Yield a control plane, its namespace, and an installed operator that is not started."""
    with started() as (plane, team), installed(plane, team, **settings) as operator:
        yield plane, team, operator


def run_script(size: int) -> Run:
    """Run the script with the rights of the operator."""
    with planes() as (plane, _, operator), kubeconfig(str(operator.folder / "kubeconfig")):
        before = operator_process.cpu_seconds(plane.pid(APISERVER))
        settings = operator.folder / "settings.yaml"
        machine.run_fresh("bench.operator.script_baseline", str(settings), str(size))
        spent = operator_process.cpu_seconds(plane.pid(APISERVER)) - before
        found = list(audit.requests(plane.audit_log, NAMESPACE))
        return _run(timelines_of_script(found, operator.user), found, operator.user, spent)


def run_operator(size: int) -> Run:
    with planes() as (plane, team, operator):
        operator.start()
        return burst(plane, team, operator, "tone", size)


def burst(
    plane: KwokControlPlane, team: Kubectl, operator: OperatorProcess, stem: str, size: int
) -> Run:
    """Create `size` FineTunes at once and wait until the running operator has completed them."""
    begin, done = plane.audit_log.stat().st_size, succeeded(operator)
    before = operator_process.cpu_seconds(plane.pid(APISERVER))
    cpu = operator.cpu_seconds()
    create(plane, [(f"{stem}-{number}", {}) for number in range(size)])
    often = max(0.5, size / 200)  # seconds; reading thousands of gauges takes CPU time
    wait(lambda: succeeded(operator) >= done + size, operator, team, every=often)
    wait_for_silence(plane)  # Events follow the states
    cpu = operator.cpu_seconds() - cpu
    spent = operator_process.cpu_seconds(plane.pid(APISERVER)) - before
    found = list(audit.requests(plane.audit_log, NAMESPACE, begin))
    timelines = timelines_of_operator(found, operator.user)
    timelines = {
        name: timeline for name, timeline in timelines.items() if name.startswith(f"{stem}-")
    }
    return _run(timelines, found, operator.user, spent, cpu=cpu, peak=operator.peak_mib())


def wait_for_silence(plane: KwokControlPlane) -> None:
    size = -1
    while size != (size := plane.audit_log.stat().st_size):
        time.sleep(SILENCE_SECONDS)


def _run(
    timelines: dict[str, Timeline],
    found: Sequence[audit.Request],
    user: str,
    apiserver: float,
    *,
    cpu: float = 0.0,
    peak: float = 0.0,
) -> Run:
    broken = [name for name, timeline in timelines.items() if not timeline.is_whole]
    if broken or not timelines:
        raise RuntimeError(
            f"{len(broken)} of {len(timelines)} timelines are incomplete: {broken[:3]}"
        )
    begin = min(timeline.created or 0 for timeline in timelines.values())
    end = max(timeline.ended or 0 for timeline in timelines.values())
    counted = audit.writes(found, user), audit.reads(found, user)
    return Run(timelines, *counted, end - begin, apiserver, cpu, peak)


def create(plane: KwokControlPlane, wanted: Sequence[tuple[str, JsonObject]], **spec: Any) -> None:
    """Create FineTunes with concurrent requests, each with a status unless it is empty.

    spec: fields in addition to the usual ones.
    """

    async def one(client: Client, turns: asyncio.Semaphore, name: str, status: JsonObject) -> None:
        collection = paths.finetunes(NAMESPACE)
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": "FineTune",
            "metadata": {"name": name},
            "spec": a_spec() | spec,
        }
        async with turns:
            await client.create(collection, manifest)
            if status:
                patch = {"op": "add", "path": "/status", "value": status}
                await client.json_patch(f"{collection}/{name}/status", [patch])

    async def everything() -> None:
        turns = asyncio.Semaphore(AT_ONCE)
        async with Client() as client:
            await asyncio.gather(*(one(client, turns, *item) for item in wanted))

    with kubeconfig(str(plane.kubeconfig)):
        asyncio.run(everything())


def succeeded(operator: OperatorProcess) -> int:
    return in_state(operator, "succeeded")


def in_state(operator: OperatorProcess, state: str) -> int:
    """Return the number of FineTunes in a state from the operator's gauge."""
    text = operator.metrics()
    line = rf'^finetune_jobs\{{[^}}]*state="{state}"\}} ([0-9.e+]+)$'
    found = re.search(line, text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def is_empty(team: Kubectl) -> bool:
    """Whether all FineTunes and their children are deleted."""
    return not team("get", "finetunes,jobs,pods", "-o", "name").strip()


def wait(
    holds: Callable[[], bool], operator: OperatorProcess, team: Kubectl, *, every: float = 0.5
) -> float:
    """Wait until `holds`, and return the seconds. Raise RuntimeError with the log on a timeout."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > GIVEN_UP_SECONDS:
            states = Counter(
                str(item.get("status", {}).get("state")) for item in team.list("finetunes")
            )
            raise RuntimeError(
                f"no end after {GIVEN_UP_SECONDS} s: {json.dumps(states)}\n{operator.logs()}"
            )
        time.sleep(every)
    return time.monotonic() - begin


@contextmanager
def kubeconfig(path: str) -> Iterator[None]:
    """Set KUBECONFIG for this process and its children."""
    former = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = path
    try:
        yield
    finally:
        if former is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = former
