"""Containers of pods, as processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from finetune_api import names
from finetune_api.tasks import TrainTask
from finetune_api.wire import JsonObject

LOG_BYTES = 2048  # of the end of a log, which replaces a missing termination message
# The programs of the images that a container without a command runs.
PROGRAMS = {
    names.COMPONENT_PREPARE: ("python", "-m", "finetune_data"),
    names.COMPONENT_TRAIN: ("python", "-m", "finetune_trainer"),
}
# Without its parent, a process saves a checkpoint and ends, also if the parent was killed.
_LAUNCH = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
os.execv(sys.argv[1], sys.argv[1:])
"""


def command_of(container: JsonObject, component: str, folder: Path) -> list[str]:
    """The command line of a container. folder: of the pod, on the file system of the models."""
    program, *arguments = container.get("command") or PROGRAMS[component]
    command = [sys.executable if program == "python" else program, *arguments]
    command += ["--termination-log", str(termination_log(folder, container["name"]))]
    if component == names.COMPONENT_TRAIN:
        command += ["--work-folder", str(folder / "work")]
    return command


def environment_of(
    container: JsonObject, folder: Path, root: Path, ports: tuple[int, int]
) -> dict[str, str]:
    """The environment of a container: that of this process, and the values of the pod.

    root: the folder of the local bucket. ports: of the progress and the ranks of a training.
    """
    given = {item["name"]: item["value"] for item in container.get("env", []) if "value" in item}
    given.pop(names.ENV_ALLOWED_ENDPOINTS, None)  # the user's own machine
    if names.ENV_BASE_REVISION in given:
        given[names.ENV_BASE_REVISION] = str(folder / "base-revision.json")
    given[names.ENV_TASK] = _task_here(given[names.ENV_TASK], ports)
    own = {names.ENV_LOCAL_ROOT: str(root), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **given, **own}


def termination_log(folder: Path, container: str) -> Path:
    return folder / f"termination-{container}"


def _task_here(text: str, ports: tuple[int, int]) -> str:
    """The task with addresses of this machine instead of names of pods."""
    try:
        task = TrainTask.model_validate_json(text)
    except ValueError:  # of another kind of pod
        return text
    progress, rendezvous = ports
    return task.replace(
        master_host="127.0.0.1", master_port=rendezvous, progress_port=progress
    ).to_json()


async def run_program(
    command: Sequence[str], environment: Mapping[str, str], log: Path, *, grace_seconds: float
) -> int:
    """Run a program to its end; returns its exit code, 128 plus the number of a signal.

    A cancellation sends SIGTERM, and SIGKILL after the grace period.
    """
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _LAUNCH, *command),
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # only this process receives Ctrl-C
        )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await process.wait()
        raise
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # ranks that have outlived their launcher
        await process.wait()
    return code if code >= 0 else 128 - code


def end_message(folder: Path, container: str, log: Path, code: int) -> str:
    """The termination message; of a failure without one, the end of the log."""
    with suppress(OSError):
        return termination_log(folder, container).read_text(encoding="utf-8", errors="replace")
    if code == 0:
        return ""
    with suppress(OSError), log.open("rb") as opened:
        opened.seek(max(0, log.stat().st_size - LOG_BYTES))
        return opened.read().decode("utf-8", "replace")
    return ""
