"""Objects that are too large, many scrapes, and an event loop that must never be blocked."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster.controlplane import ControlPlane
from tests.integration.conftest import Kubelet, Operator
from tests.integration.crowds import Crowd
from tests.integration.invariants import check_invariants
from tests.support.audit import writes_by
from tests.support.kubectl import Kubectl, RefusedError, finetune, until

pytestmark = pytest.mark.integration

SCRAPES_A_SECOND = 100


# --- T30: too large -------------------------------------------------------------------------------

MEGABYTE = "x" * 2**20
TOO_LARGE: dict[str, tuple[dict[str, Any], str]] = {
    "a spec of a megabyte": (
        finetune("large", trainingFile=f"s3://bucket/{MEGABYTE}"),
        "spec.trainingFile: Too long",
    ),
    "a map of a megabyte": (
        finetune("large", scheduling={"nodeSelector": {f"k{n}": "v" * 60 for n in range(15_000)}}),
        "spec.scheduling.nodeSelector: Too many",
    ),
    "annotations over 262,144 bytes": (
        {**finetune("large"), "metadata": {"name": "large", "annotations": {"a": "x" * 262_144}}},
        "metadata.annotations: Too long",
    ),
    "a name of 253 characters": (finetune("n" * 253), "at most 63 characters"),
    "a name of 254 characters": (finetune("n" * 254), "must be no more than 253"),
}


def test_t30_what_is_too_large_is_refused_at_the_door_and_no_loop_begins(
    team: Kubectl, operator: Operator, control_plane: ControlPlane
) -> None:
    for what, (manifest, words) in TOO_LARGE.items():
        with pytest.raises(RefusedError) as refused:
            team("create", "-f", "-", stdin=yaml.safe_dump(manifest))
        assert words in str(refused.value), what
    largest = finetune("largest", model="gpt5")
    largest["metadata"]["annotations"] = {"a": "x" * 262_000}
    team("create", "-f", "-", stdin=yaml.safe_dump(largest))
    team.wait_state("largest", "failed")
    check_invariants(team, operator, Path(control_plane.audit_log))
    found = writes_by(Path(control_plane.audit_log), operator.user, team.namespace)
    assert found["patch finetunes/status"] == 1


# --- T32, T33: scrapes, and the event loop --------------------------------------------------------

# The event loop logs a callback of this length in debug mode. A probe of the kubelet waits for 5 s.
SLOW_SECONDS = 2.0
WATCHED_LOOP = f"""
import uvloop
run = uvloop.run
def watched_loop():
    loop = uvloop.new_event_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = {SLOW_SECONDS}
    return loop
uvloop.run = lambda main: run(main, loop_factory=watched_loop)
"""
BLOCKING = (
    WATCHED_LOOP
    + """
import time
from finetune_operator.handlers import reconcile
decide = reconcile.decide
def decide_slowly(seen, settings, now):
    time.sleep(4 if seen.finetune.metadata.name == "blocks" else 0)
    return decide(seen, settings, now)
reconcile.decide = decide_slowly
"""
)
SAID = "Executing <"  # asyncio's own message


@contextmanager
def scraped(operator: Operator) -> Iterator[list[int]]:
    """Four clients read /metrics up to a hundred times a second. The list has the sizes."""
    sizes: list[int] = []
    errors: list[Exception] = []
    over = threading.Event()

    def scrape() -> None:
        pause = 4 / SCRAPES_A_SECOND
        url = f"http://127.0.0.1:{operator.metrics_port}/metrics"
        while not over.wait(pause):
            try:
                with urllib.request.urlopen(url, timeout=30) as answer:
                    sizes.append(len(answer.read()))
            except OSError as error:
                errors.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield sizes
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not errors, errors[:3]


@pytest.fixture
def watched(
    request: pytest.FixtureRequest, team: Kubectl, tools: Path, tmp_path: Path
) -> Iterator[Operator]:
    """An operator whose event loop logs slow callbacks."""
    first = getattr(request, "param", WATCHED_LOOP)
    made = Operator(team, tools / "helm", tmp_path, first=first)
    made.start()
    yield made
    made.stop()


def test_t32_t33_lives_go_on_under_a_hundred_scrapes_a_second_and_nothing_blocks(
    team: Kubectl, watched: Operator, kubelet: Kubelet, control_plane: ControlPlane
) -> None:
    crowd = Crowd(team, kubelet, *(f"tone-{number}" for number in range(8)))
    began = time.monotonic()
    with scraped(watched) as sizes:
        statuses = crowd.live(watched.logs)
        rate = len(sizes) / (time.monotonic() - began)
    assert sizes
    assert all(len(status["attempts"]) == 1 for status in statuses.values())
    check_invariants(team, watched, Path(control_plane.audit_log))
    log = (watched.folder / "operator.log").read_text()
    assert SAID not in log
    text = watched.metrics()
    print(f"{rate:.0f} scrapes a second")
    print(*(line for line in text.splitlines() if "reconcile_seconds" in line), sep="\n")
    assert 'reconciles_total{result="error"} 0.0' in text


@pytest.mark.parametrize("watched", [BLOCKING], indirect=True)
def test_t33_what_blocks_the_event_loop_is_said_and_the_operator_goes_on(
    team: Kubectl, watched: Operator
) -> None:
    team.apply(finetune("blocks", model="gpt5"), finetune("other", model="gpt5"))
    team.wait_state("blocks", "failed")
    team.wait_state("other", "failed")
    until(lambda: SAID in (watched.folder / "operator.log").read_text(), 20, watched.logs)
    assert watched.fetch(watched.port, "/healthz") == "ok"
