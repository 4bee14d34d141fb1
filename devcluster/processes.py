"""Processes identified by PID and start time.

No process is signaled by its PID only: the kernel reuses PIDs, and they restart after a reboot. A
process with another start time is another process.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Process:
    """A process that started `started` clock ticks after the boot `boot`."""

    name: str
    pid: int
    started: int
    boot: str

    def is_running(self) -> bool:
        return self.boot == boot_id() and self.started == start_time(self.pid)

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it is still the same; does nothing if it has ended."""
        try:
            # The descriptor refers to the process, which cannot change between check and signal.
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.is_running():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(descriptor)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat; None if the process does not exist or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return parse_start_time(text)


def parse_start_time(stat: str) -> int | None:
    # The second field is the program name in parentheses, which can contain spaces and parentheses.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def identify(name: str, pid: int) -> Process | None:
    started = start_time(pid)
    return None if started is None else Process(name, pid, started, boot_id())


def start(
    name: str,
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    ends_with_us: bool = False,
) -> Process:
    """Start a detached process that writes to `log`.

    With `ends_with_us`, the kernel kills it when this process ends for any reason. This works only
    in the main thread, because the kernel watches the calling thread.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if ends_with_us and threading.current_thread() is threading.main_thread():
        setpriv = shutil.which("setpriv")
        if setpriv:
            command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    with log.open("ab") as stream:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd="/",
            start_new_session=True,
        )
    process = identify(name, child.pid)
    _children[child.pid] = child
    if process is None:
        raise OSError(f"{name} stopped immediately. See {log}.")
    return process


def stop(processes: Iterable[Process], patience: float = STOP_SECONDS) -> None:
    """Send SIGTERM to all processes, and kill those that do not end in time."""
    remaining = [process for process in processes if process.is_running()]
    for process in remaining:
        process.send(signal.SIGTERM)
    kill(_wait(remaining, patience))


def kill(processes: Iterable[Process]) -> None:
    """Kill all processes and wait until they have ended."""
    remaining = [process for process in processes if process.is_running()]
    for process in remaining:
        process.send(signal.SIGKILL)
    _wait(remaining, STOP_SECONDS)


# to reap children: an ended child is a zombie until its parent waits for it
_children: dict[int, "subprocess.Popen[bytes]"] = {}


def _wait(processes: list[Process], patience: float) -> list[Process]:
    deadline = time.monotonic() + patience
    while True:
        for process in processes:
            child = _children.get(process.pid)
            if child is not None and child.poll() is not None:
                del _children[process.pid]
        processes = [process for process in processes if process.is_running()]
        if not processes or time.monotonic() > deadline:
            return processes
        time.sleep(0.02)


def read_record(path: Path) -> dict[str, Process]:
    """The recorded processes by name; empty without a record."""
    try:
        entries = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {entry["name"]: Process(**entry) for entry in entries}


def write_record(path: Path, processes: Iterable[Process]) -> None:
    scratch = path.with_suffix(".new")
    scratch.write_text(json.dumps([asdict(process) for process in processes], indent=1))
    scratch.replace(path)
