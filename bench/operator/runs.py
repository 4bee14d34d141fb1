"""One run each of the script and of the operator, on a fresh control plane; what came of it."""

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

from bench import machine
from bench.operator import audit, subject
from bench.operator.lives import Life, lives_of_operator, lives_of_script
from bench.operator.objects import a_spec
from bench.operator.plane import NAMESPACE, Plane, started
from bench.operator.subject import Subject, installed
from finetune_api import names
from finetune_api.wire import JsonObject
from finetune_operator.kube import paths
from finetune_operator.kube.client import Client
from tests.support.kubectl import Kubectl

AT_ONCE = 32  # requests of the person who creates FineTunes
GIVEN_UP_SECONDS = 900
SILENCE_SECONDS = 1.5
APISERVER = "kube-apiserver"


@dataclass(frozen=True)
class Run:
    """`lives` by name; CPU in seconds over the whole run, of the subject and of the API server."""

    lives: dict[str, Life]
    writes: Counter[str]
    reads: Counter[str]
    seconds: float  # until the last one has ended
    apiserver_seconds: float
    cpu_seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def planes() -> Iterator[tuple[Plane, Kubectl, Subject]]:
    """A control plane, its namespace, and an operator that is installed but not started."""
    with started() as (plane, team), installed(plane, team) as operator:
        yield plane, team, operator


def run_script(size: int) -> Run:
    """With the operator's own rights."""
    with planes() as (plane, _, operator), kubeconfig(str(operator.folder / "kubeconfig")):
        before = subject.cpu_seconds(plane.pid(APISERVER))
        settings = operator.folder / "settings.yaml"
        machine.run_fresh("bench.operator.script", str(settings), str(size))
        spent = subject.cpu_seconds(plane.pid(APISERVER)) - before
        found = list(audit.requests(plane.audit_log, NAMESPACE))
        return _run(lives_of_script(found, operator.user), found, operator.user, spent)


def run_operator(size: int) -> Run:
    with planes() as (plane, team, operator):
        operator.start()
        return burst(plane, team, operator, "tone", size)


def burst(plane: Plane, team: Kubectl, operator: Subject, stem: str, size: int) -> Run:
    """`size` FineTunes at once, until all have succeeded; the operator serves already."""
    begin, done = plane.audit_log.stat().st_size, succeeded(operator)
    before = subject.cpu_seconds(plane.pid(APISERVER))
    cpu = operator.cpu_seconds()
    create(plane, [(f"{stem}-{number}", {}) for number in range(size)])
    often = max(0.5, size / 200)  # seconds; a look at thousands of gauges is work, too
    wait(lambda: succeeded(operator) >= done + size, operator, team, every=often)
    _wait_for_silence(plane)  # Events come behind the states
    cpu = operator.cpu_seconds() - cpu
    spent = subject.cpu_seconds(plane.pid(APISERVER)) - before
    found = list(audit.requests(plane.audit_log, NAMESPACE, begin))
    lives = lives_of_operator(found, operator.user)
    lives = {name: life for name, life in lives.items() if name.startswith(f"{stem}-")}
    return _run(lives, found, operator.user, spent, cpu=cpu, peak=operator.peak_mib())


def _wait_for_silence(plane: Plane) -> None:
    size = -1
    while size != (size := plane.audit_log.stat().st_size):
        time.sleep(SILENCE_SECONDS)


def _run(
    lives: dict[str, Life],
    found: Sequence[audit.Request],
    user: str,
    apiserver: float,
    *,
    cpu: float = 0.0,
    peak: float = 0.0,
) -> Run:
    broken = [name for name, life in lives.items() if not life.is_whole]
    if broken or not lives:
        raise RuntimeError(f"{len(broken)} of {len(lives)} lives are not whole: {broken[:3]}")
    begin = min(life.created or 0 for life in lives.values())
    end = max(life.ended or 0 for life in lives.values())
    counted = audit.writes(found, user), audit.reads(found, user)
    return Run(lives, *counted, end - begin, apiserver, cpu, peak)


def create(plane: Plane, wanted: Sequence[tuple[str, JsonObject]]) -> None:
    """FineTunes by name, each with a status unless that is empty; many requests at once."""

    async def one(client: Client, turns: asyncio.Semaphore, name: str, status: JsonObject) -> None:
        collection = paths.finetunes(NAMESPACE)
        manifest = {
            "apiVersion": names.API_VERSION,
            "kind": "FineTune",
            "metadata": {"name": name},
            "spec": a_spec(),
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


def succeeded(operator: Subject) -> int:
    """As the operator's own gauge counts them."""
    text = operator.metrics()
    found = re.search(r'^finetune_jobs\{[^}]*state="succeeded"\} ([0-9.e+]+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def wait(
    holds: Callable[[], bool], operator: Subject, team: Kubectl, *, every: float = 0.5
) -> float:
    """Seconds until it holds. Raises with what the operator said last when it never does."""
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > GIVEN_UP_SECONDS:
            states = Counter(
                str(item.get("status", {}).get("state")) for item in team.list("finetunes")
            )
            raise RuntimeError(f"it never ends: {json.dumps(states)}\n{operator.logs()}")
        time.sleep(every)
    return time.monotonic() - begin


@contextmanager
def kubeconfig(path: str) -> Iterator[None]:
    """For clients of this process and of its children."""
    former = os.environ.get("KUBECONFIG")
    os.environ["KUBECONFIG"] = path
    try:
        yield
    finally:
        if former is None:
            del os.environ["KUBECONFIG"]
        else:
            os.environ["KUBECONFIG"] = former
