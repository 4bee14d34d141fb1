"""One life with one fault at one write of the operator, compared with an undisturbed life."""

import itertools
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from finetune_api.wire import JsonObject
from tests.integration.conftest import CHART
from tests.integration.sweep.api import PLURALS, Api
from tests.integration.sweep.forked import ForkedOperator
from tests.integration.sweep.life import Life, is_working
from tests.integration.sweep.lifecycles import LIFECYCLES
from tests.support.objects import a_settings
from tests.support.proxy import Answer, Cut, FaultyProxy, Late, Rule, Seen, let_pass

Moment = Literal["before", "after", "late"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "late")
TIMEOUT_SECONDS = 2.0  # of the operator's requests
QUIET_SECONDS = 1.5
OUTCOME_SECONDS = 30.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cell:
    """A fault at the write `number` of a lifecycle.

    before: the operator is killed, and the API server does not get the request. after: it is
    killed, and the request is committed. late: the client gives up, and the request is committed
    afterwards, one that creates or deletes at the end of the life.
    """

    lifecycle: str
    number: int = 0  # 0: no fault
    moment: Moment = "before"
    timeout_seconds: float = TIMEOUT_SECONDS
    method: str = ""  # if set: the first write of this method instead of the write `number`

    def __str__(self) -> str:
        what = self.method or f"write {self.number}"
        return f"{self.lifecycle}, {what}, {self.moment}" if self.number else self.lifecycle


@dataclass(frozen=True)
class Result:
    """What a life with a fault came to."""

    cell: Cell
    first: int  # the first write that differs from those of other lifecycles
    writes: tuple[str, ...]  # such as "POST jobs"
    hit: str | None  # the write with the fault
    outcome: JsonObject
    error: str | None
    seconds: float


class Place:
    """Where lives take place: an API server with controllers, and the chart's permissions."""

    def __init__(self, api: Api, authority: Path, helm: Path) -> None:
        self.api = api
        self._authority = authority
        self._helm = helm
        self._lock = threading.Lock()
        self._roles: list[JsonObject] = self._render_roles()

    def _render_roles(self) -> list[JsonObject]:
        """The ServiceAccounts, Role, and RoleBinding of the chart, for the namespace NAMESPACE."""
        command = [str(self._helm), "template", "finetune-operator", str(CHART)]
        command += ["-n", "NAMESPACE", "--set", "crds.install=false,modelDeletion.enabled=true"]
        rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return [item for item in yaml.safe_load_all(rendered) if item and item["kind"] in PLURALS]

    @contextmanager
    def life(self, cell: Cell) -> Iterator[Life]:
        """A new namespace with an operator that reaches the API server through a proxy."""
        with self._lock:
            api = self.api.within(f"life-{next(_numbers):04}")
        api.create_namespace()
        text = yaml.safe_dump(self._roles).replace("NAMESPACE", api.namespace)
        api.create_all(yaml.safe_load(text))
        with (
            tempfile.TemporaryDirectory() as folder,
            FaultyProxy(api.server, self._authority) as proxy,
        ):
            _write_settings(Path(folder), api.namespace, cell)
            _write_kubeconfig(Path(folder), proxy.url, api.token("finetune-operator"))
            operator = ForkedOperator(Path(folder), _free_port(), _free_port())
            life = Life(api, proxy, operator)
            proxy.rule = _fault(cell, life)
            try:
                operator.start()
                yield life
            finally:
                life.released.set()
                operator.stop()


def _write_settings(folder: Path, namespace: str, cell: Cell) -> None:
    settings = a_settings(
        namespace=namespace,
        pollSeconds=0.5,
        requestTimeoutSeconds=cell.timeout_seconds,
        deletesModels=cell.lifecycle == "model-deletion",
    )
    given = settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (folder / "settings.yaml").write_text(yaml.safe_dump(given))


def _write_kubeconfig(folder: Path, server: str, token: str) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": server}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {"token": token}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _fault(cell: Cell, life: Life) -> Rule:
    if not cell.number:
        return let_pass

    def rule(seen: Seen) -> Answer | Cut | Late | None:
        if life.hit is not None or not seen.number:
            return None
        if cell.method != seen.method if cell.method else cell.number != seen.number:
            return None
        life.hit = seen
        if cell.moment == "late":
            at_once = threading.Event()
            at_once.set()
            is_patch = seen.method == "PATCH"
            return Late(at_once, 0.5) if is_patch else Late(life.released)
        life.operator.send(signal.SIGKILL)
        return Answer(503) if cell.moment == "before" else Cut()

    return rule


def run(place: Place, cell: Cell, calm: Result | None = None) -> Result:
    """Run the life of a cell. calm: the undisturbed one, whose outcome is the right one."""
    began = time.monotonic()
    error, outcome = None, {}
    with place.life(cell) as life:
        try:
            LIFECYCLES[cell.lifecycle](life)
            outcome = _settle(life, calm.outcome if calm else None, is_late=cell.moment == "late")
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        writes = tuple(f"{seen.method} {seen.resource}" for seen in life.proxy.writes)
        hit = f"{life.hit.method} {life.hit.resource}" if life.hit else None
    return Result(cell, life.first, writes, hit, outcome, error, time.monotonic() - began)


def _settle(life: Life, wanted: JsonObject | None, *, is_late: bool) -> JsonObject:
    """Commit what is late, wait for the wanted outcome, and check that nothing follows."""
    life.released.set()
    late = life.hit
    if late is not None and is_late:
        life.until(lambda: _is_over(life, late), "the late commit")
    if wanted is not None:
        life.until(
            lambda: _outcome(life) == wanted,
            lambda: f"{wanted} instead of {_outcome(life)}",
            OUTCOME_SECONDS,
        )
    life.until(lambda: _is_quiet(life), "the last write")
    outcome = _outcome(life)
    assert wanted is None or outcome == wanted, f"{outcome} instead of {wanted}"
    assert not _working(life), f"Jobs still work: {_working(life)}"
    _check_events(life)
    return outcome


def _working(life: Life) -> list[str]:
    return [job["metadata"]["name"] for job in life.api.list("jobs") if is_working(job)]


def _is_over(life: Life, late: Seen) -> bool:
    return any(seen is late for seen, _ in life.proxy.answered)


def _is_quiet(life: Life) -> bool:
    before = len(life.proxy.writes)
    time.sleep(QUIET_SECONDS)
    return len(life.proxy.writes) == before


def _outcome(life: Life) -> JsonObject:
    """What must not depend on faults: the end, the attempts, the events, and the objects left."""
    status = life.status()
    attempts = ("number", "reason", "counted", "microBatchShare")
    events = ("reason", "attempt", "key")
    return {
        "state": status.get("state"),
        "reason": status.get("reason"),
        "error": status.get("error", {}).get("code"),
        "model": status.get("fineTunedModel"),
        "attempts": [[item.get(key) for key in attempts] for item in status.get("attempts", [])],
        "events": sorted(
            [[item.get(key) for key in events] for item in status.get("events", [])], key=str
        ),
        "jobs": _endings(life, "jobs"),
        "services": _endings(life, "services"),
        "models": [item["spec"]["id"] for item in life.api.list("models")],
    }


def _fields(items: list[JsonObject], keys: tuple[str, ...]) -> list[list[Any]]:
    return [[item.get(key) for key in keys] for item in items]


def _endings(life: Life, plural: str) -> list[str]:
    """The names of the objects that are not being deleted, without the UID of the FineTune."""
    metas = [item["metadata"] for item in life.api.list(plural)]
    return sorted(
        meta["name"].rsplit("-", 1)[1] for meta in metas if "deletionTimestamp" not in meta
    )


def _check_events(life: Life) -> None:
    """Each event is recorded once, and posted at most once: a crash may prevent the posting."""
    recorded = life.status().get("events", [])
    keys = Counter((item["reason"], item.get("attempt"), item.get("key")) for item in recorded)
    assert set(keys.values()) <= {1}, keys
    posted: Counter[tuple[Any, ...]] = Counter()
    for event in life.api.list("events"):
        if event["involvedObject"].get("kind") == "FineTune":
            posted[event["reason"], event["message"]] += event.get("count") or 1
    assert set(posted.values()) <= {1}, posted
