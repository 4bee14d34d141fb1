"""A training that many tests disrupt: the same data and settings always give the same results."""

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
WAIT_SECONDS = 240  # for an attempt on a busy machine


@dataclass(frozen=True)
class Results:
    """The results that must not depend on disruptions."""

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
        """The label selector of the training pods."""
        return f"{LABEL_UID}={self.uid},{LABEL_COMPONENT}={COMPONENT_TRAIN}"

    def summary(self) -> str:
        """The status so far, for the message of a test that timed out."""
        return json.dumps(self.status, indent=1)[-3000:]

    def change(self, **spec: Any) -> None:
        self.kubectl(
            "patch", "finetune", self.name, "--type=merge", "-p", json.dumps({"spec": spec})
        )

    def pods(self) -> list[dict[str, Any]]:
        return self.kubectl.list("pods", self.selector)

    def working(self) -> set[str]:
        """The names of the pods that are not terminating, including those of the next attempt."""
        return {pod["metadata"]["name"] for pod in self.pods() if not is_terminating(pod)}

    def step(self, of: str = "step") -> int:
        """The step that rank 0 reports now; 0 while there is no answer."""
        url = self._progress_url()
        return read_step(url, of) if url else 0

    def _progress_url(self) -> str | None:
        for pod in self.pods():
            index = pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]
            address = pod["status"].get("podIP")
            if index == "0" and address and not is_terminating(pod):
                return f"http://{address}:{PORT_PROGRESS}/progress"
        return None

    def wait_step(self, step: int, of: str = "step") -> None:
        """Wait for this many steps; fails if the training ends before.

        `of` "checkpointStep": until a checkpoint of that step or a later one is complete.
        """

        def reached() -> bool:
            assert self.status.get("state") in (None, "pending", "running"), self.summary()
            return self.step(of) >= step

        until(reached, WAIT_SECONDS, self.summary)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop rank 1, so that all ranks wait in their next step."""
        pid = self.rank_process(1)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextmanager
    def paced(self, steps_per_second: float) -> Iterator[None]:
        """Slow rank 1 down, so that the training lasts longer."""
        pid, url = self.rank_process(1), self._progress_url()
        assert url is not None
        ended, begun, first = Event(), time.monotonic(), read_step(url)

        def hold_back() -> None:
            while not ended.wait(0.1):
                allowed = first + steps_per_second * (time.monotonic() - begun)
                os.kill(pid, signal.SIGCONT if read_step(url) < allowed else signal.SIGSTOP)

        with ThreadPoolExecutor(1) as aside:
            held = aside.submit(hold_back)
            try:
                yield
            finally:
                ended.set()
                held.result()
                os.kill(pid, signal.SIGCONT)

    def end_pods(self, action: Callable[[], object]) -> None:
        """Perform an action that ends the pods, while they wait in a step."""
        working = self.working()
        with ThreadPoolExecutor(1) as aside:
            with self.frozen():
                ending = aside.submit(action)
                until(lambda: not working & self.working(), 90, self.summary)
            ending.result()

    def wait_attempts(self, count: int, seconds: float = 90) -> None:
        until(lambda: len(self.status.get("attempts", [])) == count, seconds, self.summary)

    def wait_message(self, *words: str, seconds: float = 90) -> None:
        def has_message() -> bool:
            message = self.status.get("message", "")
            return all(word in message for word in words)

        until(has_message, seconds, self.summary)

    def wait_success(self) -> dict[str, Any]:
        status = self.kubectl.wait_state(self.name, "succeeded", "failed", seconds=WAIT_SECONDS)
        assert status["state"] == "succeeded", self.summary()
        return status

    def results(self, status: Mapping[str, Any]) -> Results:
        """status: the final one."""
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
    """The step that rank 0 reports; 0 if it does not answer."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            return int(json.load(answer).get(of) or 0)
    except OSError:
        return 0


def is_terminating(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def jsonl(rows: int, seed: int = 0) -> str:
    """Prompts with completions that a tiny model can learn."""
    lines = []
    for number in range(seed, seed + rows):
        letters = "abcdefgh"[number % 8] * (2 + number % 3)
        word = "even" if number % 2 == 0 else "odd"
        lines.append(json.dumps({"prompt": f"{letters} {number} ->", "completion": f" {word}"}))
    return "\n".join(lines) + "\n"


def processes() -> list[tuple[int, list[bytes], list[bytes]]]:
    """(process id, arguments, environment) of every process on this machine."""
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
