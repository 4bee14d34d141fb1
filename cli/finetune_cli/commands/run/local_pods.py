"""Runs the training pods as local processes: their output, their end, and their outcome."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from finetune_api.names import ENV_LOCAL_ROOT, ENV_TASK
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask, TrainTask
from finetune_trainer import base_model_failures

POLL_SECONDS = 0.1
PEER_SECONDS = 30.0  # the time that other pods have to notice a failed pod


class LocalPod:
    """A process that runs the entry point of a training pod."""

    def __init__(self, task: TrainTask, index: int, folder: Path, root: Path) -> None:
        if index:
            task = task.replace(progress_port=free_port())
        self._outcome_file = folder / f"outcome-{index}"
        command = [sys.executable, "-m", "finetune_trainer"]
        command += ["--work-folder", str(folder / f"work-{index}")]
        command += ["--termination-log", str(self._outcome_file)]
        own = {
            ENV_TASK: task.to_json(),
            ENV_LOCAL_ROOT: str(root),
            "JOB_COMPLETION_INDEX": str(index),
        }
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **own},
            stdout=subprocess.DEVNULL if index else None,  # the output of the first pod is enough
            start_new_session=True,  # only this process receives Ctrl-C
        )

    @property
    def exit_code(self) -> int | None:
        """None while the process runs."""
        return self._process.poll()

    @property
    def outcome(self) -> Outcome | None:
        """None: the process wrote no outcome."""
        return (
            Outcome.parse(self._outcome_file.read_text()) if self._outcome_file.exists() else None
        )

    def request_stop(self) -> None:
        """Ask the process to save a checkpoint after its current step and to exit."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill the process and its children."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def check_base_model(task: PrepareTask, root: Path) -> Outcome | None:
    """Check the base model as the prepare pod of a cluster does; None if it can be trained."""
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        file = Path(folder) / "outcome"
        command = [sys.executable, "-m", "finetune_trainer.base_check"]
        command += ["--termination-log", str(file)]
        own = {ENV_TASK: task.to_json(), ENV_LOCAL_ROOT: str(root)}
        code = subprocess.run(command, env={**os.environ, **own}, check=False).returncode
        written = file.read_text() if file.exists() else None
    if not code:
        return None
    return Outcome.parse(written) or Outcome(failure=base_model_failures.check_ended(code))


def train(task: TrainTask, root: Path) -> Outcome | None:
    """Run the pods until all have ended; returns their outcome, or None if they wrote none.

    Ctrl-C asks them to save a checkpoint after their current step; a second Ctrl-C kills them.
    """
    # on the file system of the output, so that files can be moved without a copy
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=root))
    pods: list[LocalPod] = []
    try:
        for index in range(task.nodes):
            pods.append(LocalPod(task, index, folder, root))
        ended = _wait(pods)
        outcomes = [pod.outcome for pod in ended if pod.exit_code] + [pods[0].outcome]
        return next((outcome for outcome in outcomes if outcome is not None), None)
    finally:
        for pod in pods:
            pod.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(pods: Sequence[LocalPod]) -> list[LocalPod]:
    """Wait for all pods; returns them in the order of their end. A failed pod ends the others."""
    ended: list[LocalPod] = []
    failed_at: float | None = None
    is_stopping = False
    while len(ended) < len(pods):
        try:
            time.sleep(POLL_SECONDS)
            ended += [pod for pod in pods if pod not in ended and pod.exit_code is not None]
            if failed_at is None and any(pod.exit_code for pod in ended):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > PEER_SECONDS:
                _kill(pods)
        except KeyboardInterrupt:
            if is_stopping:
                _kill(pods)
                continue
            is_stopping = True
            print("\nSaving a checkpoint after this step. Press Ctrl-C again to stop immediately.")
            for pod in pods:
                pod.request_stop()
    return ended


def _kill(pods: Sequence[LocalPod]) -> None:
    for pod in pods:
        pod.kill()


def free_port() -> int:
    """A free port of this machine, for the ranks or the progress page."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
