"""The training as processes of their own: what they print, how they are stopped, what they made."""

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
from finetune_api.tasks import TrainTask

POLL_SECONDS = 0.1
ALONE_SECONDS = 30.0  # after one has failed, for the others to notice it


class Pod:
    """What would be a pod in a cluster: its entry, run here."""

    def __init__(self, task: TrainTask, index: int, folder: Path, root: Path) -> None:
        if index:
            task = task.replace(progress_port=free_port())
        self._ended = folder / f"outcome-{index}"
        command = [sys.executable, "-m", "finetune_trainer"]
        command += ["--work-folder", str(folder / f"work-{index}")]
        command += ["--termination-log", str(self._ended)]
        own = {
            ENV_TASK: task.to_json(),
            ENV_LOCAL_ROOT: str(root),
            "JOB_COMPLETION_INDEX": str(index),
        }
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **own},
            stdout=subprocess.DEVNULL if index else None,  # the first one's lines are enough
            start_new_session=True,  # Ctrl-C is for us
        )

    @property
    def exit_code(self) -> int | None:
        """None while it works."""
        return self._process.poll()

    @property
    def outcome(self) -> Outcome | None:
        """None: it said nothing."""
        return Outcome.parse(self._ended.read_text()) if self._ended.exists() else None

    def ask_to_stop(self) -> None:
        """After its step, with a checkpoint."""
        self._process.terminate()

    def kill(self) -> None:
        """With all that it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)


def train(task: TrainTask, root: Path) -> Outcome | None:
    """Runs the pods' own entry until all have ended; None: they said nothing.

    Ctrl-C asks them to stop after their step, with a checkpoint; a second one ends them at once.
    """
    # on the output's file system, so that files change places without being copied
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=root))
    pods: list[Pod] = []
    try:
        for index in range(task.nodes):
            pods.append(Pod(task, index, folder, root))
        ended = _wait(pods)
        outcomes = [pod.outcome for pod in ended if pod.exit_code] + [pods[0].outcome]
        return next((outcome for outcome in outcomes if outcome is not None), None)
    finally:
        for pod in pods:
            pod.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(pods: Sequence[Pod]) -> list[Pod]:
    """In the order in which they ended. One that failed takes the others with it."""
    ended: list[Pod] = []
    failed_at: float | None = None
    is_asked = False
    while len(ended) < len(pods):
        try:
            time.sleep(POLL_SECONDS)
            ended += [pod for pod in pods if pod not in ended and pod.exit_code is not None]
            if failed_at is None and any(pod.exit_code for pod in ended):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > ALONE_SECONDS:
                _kill(pods)
        except KeyboardInterrupt:
            if is_asked:
                _kill(pods)
                continue
            is_asked = True
            print("\nstopping after this step, with a checkpoint (Ctrl-C again: at once)")
            for pod in pods:
                pod.ask_to_stop()
    return ended


def _kill(pods: Sequence[Pod]) -> None:
    for pod in pods:
        pod.kill()


def free_port() -> int:
    """Of this machine, for the ranks or the progress page."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
