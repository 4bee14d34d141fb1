"""Operator processes that are forked from one that has imported the program.

A sweep starts the operator a thousand times, and the imports would take most of the time. The
process is the whole program otherwise, and it dies like any other one.
"""

import multiprocessing
import os
import signal
import threading
import time
import urllib.request
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from devcluster.controlplane import free_ports

START_SECONDS = 90.0  # on a machine that does much else
END_SECONDS = 15.0
# An exit code can be read only once, and the start of a process reads those of all others.
_polling = threading.Lock()
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["finetune_operator.main", "tests.integration.sweep.forked"])


def _run(arguments: list[str], kubeconfig: str, log: str) -> None:
    """Run the operator in this process."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ["KUBECONFIG"] = kubeconfig
    from finetune_operator.main import main

    main(arguments)


class ForkedOperator:
    """An operator that can be killed by any thread and started again by its owner."""

    def __init__(self, folder: Path) -> None:
        """folder: with `settings.yaml` and `kubeconfig`."""
        self.folder = folder
        self.starts = 0
        probe_port, metrics_port = free_ports(2)
        self._port, self._metrics_port = probe_port, metrics_port
        self._arguments = ["run", "--settings", str(folder / "settings.yaml")]
        self._arguments += ["--probe-port", str(probe_port), "--metrics-port", str(metrics_port)]
        self._process: ForkServerProcess | None = None

    def twin(self) -> "ForkedOperator":
        """Another replica, which is not started yet."""
        return ForkedOperator(self.folder)

    @property
    def exit_code(self) -> int | None:
        with _polling:
            return self._process.exitcode if self._process else None

    @property
    def is_dead(self) -> bool:
        with _polling:
            return self._process is None or not self._process.is_alive()

    def start(self) -> None:
        """Start the process and wait until its watches are open."""
        self.starts += 1
        files = (str(self.folder / "kubeconfig"), str(self.folder / "operator.log"))
        self._process = _processes.Process(target=_run, args=(self._arguments, *files), daemon=True)
        with _polling:
            self._process.start()
        end = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if time.monotonic() > end:
                raise AssertionError(f"the operator does not start: {self.logs()}")
            if self.is_dead:  # a signal of the test
                return
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        with suppress(OSError):
            url = f"http://127.0.0.1:{self._port}/readyz"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        return False

    def send(self, what: signal.Signals) -> None:
        """Send a signal to the process, if there is one. Any thread may call this."""
        process = self._process
        if process is not None and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, what)

    def stop(self) -> None:
        self.send(signal.SIGKILL)
        end = time.monotonic() + END_SECONDS
        while not self.is_dead and time.monotonic() < end:
            time.sleep(0.02)

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def logs(self) -> str:
        with suppress(FileNotFoundError):
            return (self.folder / "operator.log").read_text()[-3000:]
        return ""
