"""One training that many tests disturb: always the same data and numbers, so the same results."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from finetune_api.names import COMPONENT_TRAIN, LABEL_COMPONENT, LABEL_UID, PORT_PROGRESS
from tests.support.kubectl import finetune, until

if TYPE_CHECKING:
    from tests.e2e.conftest import Team

STEPS = 400
EPOCH_STEPS = 100
PATIENCE = 240  # seconds for an attempt to come so far, on a busy machine


@dataclass(frozen=True)
class Results:
    """What must not depend on what happened on the way."""

    rows: str  # results.csv as it is
    weights: str  # the ETag of model.safetensors


class Training:
    """A FineTune of two pods and 400 steps."""

    def __init__(self, team: Team, name: str, **changes: Any) -> None:
        self.team = team
        self.kubectl = team.kubectl
        self.name = name
        spec = {
            "model": "tiny",
            "trainingFile": team.put("long.jsonl", jsonl(8 * EPOCH_STEPS)),
            "hyperparameters": {"nEpochs": 4, "batchSize": 8, "learningRate": 0.003},
            "resources": {"nodes": 2, "gpusPerNode": 0},
        }
        self.kubectl.apply(finetune(name, **(spec | changes)))
        self.uid: str = self.kubectl.get("finetune", name)["metadata"]["uid"]

    @property
    def status(self) -> dict[str, Any]:
        return self.kubectl.status(self.name)

    @property
    def selector(self) -> str:
        """Of its training pods."""
        return f"{LABEL_UID}={self.uid},{LABEL_COMPONENT}={COMPONENT_TRAIN}"

    def told(self) -> str:
        """Its story so far, for a test that waited in vain."""
        return json.dumps(self.status, indent=1)[-3000:]

    def change(self, **spec: Any) -> None:
        self.kubectl(
            "patch", "finetune", self.name, "--type=merge", "-p", json.dumps({"spec": spec})
        )

    def pods(self) -> list[dict[str, Any]]:
        return self.kubectl.list("pods", self.selector)

    def working(self) -> set[str]:
        """Names of the pods that nobody has asked to end; the next attempt's among them."""
        return {pod["metadata"]["name"] for pod in self.pods() if not is_going(pod)}

    def step(self, of: str = "step") -> int:
        """Rank 0's own word at this moment; 0 while nobody answers."""
        url = self._progress_url()
        return read_step(url, of) if url else 0

    def _progress_url(self) -> str | None:
        for pod in self.pods():
            index = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
            address = pod["status"].get("podIP")
            if index == "0" and address and not is_going(pod):
                return f"http://{address}:{PORT_PROGRESS}/progress"
        return None

    def wait_step(self, step: int, of: str = "step") -> None:
        """Until that many are done; fails when the training ended first.

        `of` "checkpointStep": until a checkpoint of that step or a later one is complete.
        """

        def reached() -> bool:
            assert self.status.get("state") in (None, "pending", "running"), self.told()
            return self.step(of) >= step

        until(reached, PATIENCE, self.told)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Rank 1 stands still, and so does the gang at its next step: time to look around."""
        pid = self.rank_process(1)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def paced(self, steps_a_second: float) -> Iterator[None]:
        """Rank 1 is held back, so that the training lasts; no faster than it can."""
        pid, url = self.rank_process(1), self._progress_url()
        assert url is not None
        ended, begun, first = Event(), time.monotonic(), read_step(url)

        def hold_back() -> None:
            while not ended.wait(0.1):
                allowed = first + steps_a_second * (time.monotonic() - begun)
                os.kill(pid, signal.SIGCONT if read_step(url) < allowed else signal.SIGSTOP)

        with ThreadPoolExecutor(1) as aside:
            held = aside.submit(hold_back)
            try:
                yield
            finally:
                ended.set()
                held.result()
                os.kill(pid, signal.SIGCONT)

    def ask_to_end(self, action: Callable[[], object]) -> None:
        """Does what makes its pods end; they hear of it at this step, however fast they are."""
        working = self.working()
        with ThreadPoolExecutor(1) as aside:
            with self.frozen():
                asked = aside.submit(action)
                until(lambda: not working & self.working(), 90, self.told)
            asked.result()

    def wait_attempts(self, count: int, seconds: float = 90) -> None:
        until(lambda: len(self.status.get("attempts", [])) == count, seconds, self.told)

    def wait_message(self, *words: str, seconds: float = 90) -> None:
        def is_told() -> bool:
            message = self.status.get("message", "")
            return all(word in message for word in words)

        until(is_told, seconds, self.told)

    def wait_success(self) -> dict[str, Any]:
        status = self.kubectl.wait_state(self.name, "succeeded", "failed", seconds=PATIENCE)
        assert status["state"] == "succeeded", self.told()
        return status

    def results(self, status: Mapping[str, Any]) -> Results:
        """status: of the end."""
        bucket, prefix = status["modelUri"].removeprefix("s3://").split("/", 1)
        model = self.team.cluster.s3.head_object(Bucket=bucket, Key=f"{prefix}/model.safetensors")
        return Results(self.rows(status), model["ETag"])

    def rows(self, status: Mapping[str, Any]) -> str:
        return self.team.read(
            next(uri for uri in status["resultFiles"] if uri.endswith("results.csv"))
        )

    def messages(self) -> list[str]:
        return [event["message"] for event in self.status["events"]]

    def rank_process(self, rank: int) -> int:
        """The host's process id of one rank."""
        wanted = f"RANK={rank}".encode()
        for pid, command, environment in processes():
            is_mine = any(
                item.startswith(b"FINETUNE_TASK=") and self.uid.encode() in item
                for item in environment
            )
            if is_mine and wanted in environment and b"finetune_trainer.rank.main" in command:
                return pid
        raise AssertionError(f"no process of rank {rank}")


def read_step(url: str, of: str = "step") -> int:
    """Of a rank 0 that may be gone."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return int(json.load(answer).get(of) or 0)
    except OSError:
        return 0


def is_going(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def jsonl(rows: int, seed: int = 0) -> str:
    """Prompts whose completion follows from them: something that a tiny model can learn."""
    lines = []
    for number in range(seed, seed + rows):
        letters = "abcdefgh"[number % 8] * (2 + number % 3)
        word = "even" if number % 2 == 0 else "odd"
        lines.append(json.dumps({"prompt": f"{letters} {number} ->", "completion": f" {word}"}))
    return "\n".join(lines) + "\n"


def processes() -> list[tuple[int, list[bytes], list[bytes]]]:
    """(pid, arguments, environment) of every process of this machine."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(folder.name) != os.getpid():
            found.append((int(folder.name), command, environment))
    return found
