"""Runs the training pods as local processes: their output, their end, and their outcome."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from finetune_api.names import ENV_LOCAL_ROOT, ENV_TASK
from finetune_api.outcome import Outcome
from finetune_api.tasks import PrepareTask, TrainTask
from finetune_cli.terminal.output import show
from finetune_trainer import base_model_failures

POLL_SECONDS = 0.1
RELAY_SECONDS = 5.0  # for the last lines of a process that has ended
UNBUFFERED = "PYTHONUNBUFFERED"  # environment variable: lines appear at once in a pipe, too
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
            UNBUFFERED: "1",
        }
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **own},
            # the output of the first pod is enough
            stdout=subprocess.DEVNULL if index else subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # only this process receives Ctrl-C
        )
        self._relays = relay_output(self._process)

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

    def finish_output(self) -> None:
        """Wait for the last lines, unless another process holds the pipe."""
        for relay in self._relays:
            relay.join(RELAY_SECONDS)


def check_base_model(task: PrepareTask, root: Path) -> Outcome | None:
    """Check the base model as the prepare pod of a cluster does; None if it can be trained."""
    with tempfile.TemporaryDirectory(prefix="finetune-") as folder:
        file = Path(folder) / "outcome"
        command = [sys.executable, "-m", "finetune_trainer.base_check"]
        command += ["--termination-log", str(file)]
        own = {ENV_TASK: task.to_json(), ENV_LOCAL_ROOT: str(root), UNBUFFERED: "1"}
        process = subprocess.Popen(
            command, env={**os.environ, **own}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        relays = relay_output(process)
        try:
            code = process.wait()
        finally:
            process.kill()
            for relay in relays:
                relay.join(RELAY_SECONDS)
        written = file.read_text() if file.exists() else None
    if not code:
        return None
    return Outcome.parse(written) or Outcome(failure=base_model_failures.check_ended(code))


def relay_output(process: subprocess.Popen[bytes]) -> list[threading.Thread]:
    """Print what a process prints, which quotes files of other people, line by line."""

    def copy(stream: IO[bytes], *, is_error: bool) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            for state in text.split("\r"):  # of a progress bar
                show(state, is_error=is_error)

    made = []
    for stream, is_error in ((process.stdout, False), (process.stderr, True)):
        if stream is not None:
            made.append(
                threading.Thread(target=partial(copy, stream, is_error=is_error), daemon=True)
            )
            made[-1].start()
    return made


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
            pod.finish_output()
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
            show("")
            show("Saving a checkpoint after this step. Press Ctrl-C again to stop immediately.")
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
