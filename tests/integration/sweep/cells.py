"""One life with one fault at one write of the operator, compared with an undisturbed life."""

import itertools
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_api.wire import JsonObject
from tests.integration.conftest import CHART
from tests.integration.sweep.api import PLURALS, Api
from tests.integration.sweep.faults import SWEEP_SECONDS, Cell, inject
from tests.integration.sweep.forked import ForkedOperator
from tests.integration.sweep.life import Life, is_working
from tests.integration.sweep.lifecycles import LIFECYCLES, SERVING, SERVING_LIFECYCLES
from tests.support.objects import a_settings
from tests.support.proxy import FaultyProxy, Seen

QUIET_SECONDS = 1.5
OUTCOME_SECONDS = 30.0
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Result:
    """What a life with a fault came to."""

    cell: Cell
    first: int  # the first write that differs from those of other lifecycles
    writes: tuple[str, ...]  # such as "POST jobs"
    events: int  # of the operator's watches
    hit: str | None  # the write or event with the fault
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
        command += ["-n", "NAMESPACE", "--set", "crds.install=false,serving.enabled=true"]
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
            life = Life(api, proxy, ForkedOperator(Path(folder)))
            inject(cell, life)
            try:
                life.operator.start()
                yield life
            finally:
                life.close()


def _write_settings(folder: Path, namespace: str, cell: Cell) -> None:
    settings = a_settings(
        namespace=namespace,
        pollSeconds=0.5,
        requestTimeoutSeconds=cell.timeout_seconds,
        sweepSeconds=SWEEP_SECONDS if cell.moment == "lost" else 300,
        deletesModels=cell.lifecycle == "model-deletion",
        **({"serving": SERVING} if cell.lifecycle in SERVING_LIFECYCLES else {}),
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


def run(place: Place, cell: Cell, calm: Result | None = None) -> Result:
    """Run the life of a cell. calm: the undisturbed one, whose outcome is the right one."""
    began = time.monotonic()
    error, outcome = None, {}
    with place.life(cell) as life:
        try:
            LIFECYCLES[cell.lifecycle](life)
            outcome = settle(life, cell, calm.outcome if calm else None)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        writes = tuple(f"{seen.method} {seen.resource}" for seen in life.proxy.writes)
        hit = f"{life.hit.method} {life.hit.resource}" if life.hit else life.hit_event
    seconds = time.monotonic() - began
    return Result(cell, life.first, writes, life.events, hit, outcome, error, seconds)


def settle(life: Life, cell: Cell, wanted: JsonObject | None) -> JsonObject:
    """Commit what is late, wait for the wanted outcome, and check that nothing follows."""
    life.end_fault()
    late = life.hit
    if late is not None and cell.moment in {"late", "rival"}:
        life.until(lambda: _is_over(life, late), "the late commit")
    if late is not None and cell.moment == "term":
        life.until(lambda: life.exit_codes, "the end after SIGTERM")
        assert life.exit_codes == [0], life.exit_codes
    life.until(lambda: not _working(life), "the end of all Jobs", OUTCOME_SECONDS)
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
        "model": bool(status.get("fineTunedModel")),
        "attempts": _fields(status.get("attempts", []), attempts),
        "events": sorted(_fields(status.get("events", []), events), key=str),
        "jobs": _endings(life, "jobs"),
        "services": _endings(life, "services"),
        "models": len(life.api.list("models")),
        **(_served(life) if life.serves else {}),
    }


def _served(life: Life) -> JsonObject:
    """The state of the server, and its objects."""
    serving = life.serving()
    return {
        "serving": [serving.get(key) for key in ("state", "reason", "readyReplicas", "runtime")],
        "deployments": [item["spec"]["replicas"] for item in life.api.list("deployments")],
        "leases": _endings(life, "leases"),
        "pods": len(life.serving_pods()),
    }


def _fields(items: list[JsonObject], keys: tuple[str, ...]) -> list[list[Any]]:
    return [[_plain(item.get(key)) for key in keys] for item in items]


def _plain(value: Any) -> Any:
    """The value, without UIDs in its text."""
    uid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    return re.sub(uid, "UID", value) if isinstance(value, str) else value


def _endings(life: Life, plural: str) -> list[str]:
    """The names of the objects that are not being deleted, without the UID of the FineTune."""
    metas = [item["metadata"] for item in life.api.list(plural)]
    return sorted(
        meta["name"].rsplit("-", 1)[1] for meta in metas if "deletionTimestamp" not in meta
    )


def _check_events(life: Life) -> None:
    """Each event is recorded once, with the next number, and posted at most once.

    A crash may prevent the posting.
    """
    recorded = life.status().get("events", [])
    keys = Counter((item["reason"], item.get("attempt"), item.get("key")) for item in recorded)
    assert set(keys.values()) <= {1}, keys
    numbers = [item.get("seq") for item in recorded]
    assert numbers == list(range(1, len(recorded) + 1)), numbers
    posted: Counter[tuple[Any, ...]] = Counter()
    for event in life.api.list("events"):
        if event["involvedObject"].get("kind") == "FineTune":
            what = event["involvedObject"]["uid"], event["reason"], event["message"]
            posted[what] += event.get("count") or 1
    assert set(posted.values()) <= {1}, posted
