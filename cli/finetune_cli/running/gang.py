"""The training as a process of its own: what it prints, how it is asked to stop, what it made."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from finetune_api.names import ENV_LOCAL_ROOT, ENV_TASK
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask


def train(task: TrainTask, root: Path) -> Outcome | None:
    """Runs the pod's own entry until it ends; None: it said nothing.

    Ctrl-C asks it to stop after its step, with a checkpoint; a second one ends it at once.
    """
    # on the output's file system, so that files change places without being copied
    folder = Path(tempfile.mkdtemp(prefix=".work-", dir=root))
    ended = folder / "outcome"
    command = [sys.executable, "-m", "finetune_trainer", "--work-folder", str(folder / "work")]
    process = subprocess.Popen(
        [*command, "--termination-log", str(ended)],
        env={**os.environ, ENV_TASK: task.to_json(), ENV_LOCAL_ROOT: str(root)},
        start_new_session=True,  # Ctrl-C is for us
    )
    try:
        _wait(process)
        return Outcome.parse(ended.read_text()) if ended.exists() else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            process.wait()
        except KeyboardInterrupt:
            if number == signal.SIGTERM:
                print("\nstopping after this step, with a checkpoint (Ctrl-C again: at once)")
                process.send_signal(number)
            else:
                os.killpg(process.pid, number)
    process.wait()


def free_port() -> int:
    """Of this machine, for the ranks or the progress page."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
