"""torchrun as a child: its command line, its output, and which of its workers died."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune_api.tasks import TrainTask
from finetune_trainer.autopsy import Death

LOG_LINES = 12
LAST_WORDS_SECONDS = 2.0  # for the other workers of the pod to write down what they saw

# What torchrun says, in this order: that it ends the others, the first death, all deaths.
_CLOSING = re.compile(r"Sending process \d+ closing signal")
_DEATH = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")
_RANK = re.compile(r"^\s*rank\s*: \d+ \(local_rank: (\d+)\)")
_EXIT = re.compile(r"^\s*exitcode\s*: (-?\d+)")


class Torchrun:
    """The running child, in a process group of its own."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.deaths: list[Death] = []  # of this pod's workers, the first one first
        self.has_killed = False
        self._closing_at: float | None = None
        self._died_at: float | None = None
        self._summary_rank: int | None = None
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self._process = subprocess.Popen(
            command,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            self._note(line)

    def _note(self, line: str) -> None:
        if found := _CLOSING.search(line):
            self._closing_at = self._closing_at or time.monotonic()
        elif found := _DEATH.search(line):
            self._died_at = self._died_at or time.monotonic()
            self._add(Death(local_rank=int(found[2]), exit_code=int(found[1])))
        elif found := _RANK.match(line):
            self._summary_rank = int(found[1])
        elif (found := _EXIT.match(line)) and self._summary_rank is not None:
            self._add(Death(local_rank=self._summary_rank, exit_code=int(found[1])))
        elif line.strip() and self._closing_at is None and not self.deaths:
            self._lines.append(line.rstrip()[:300])

    def _add(self, death: Death) -> None:
        if death.local_rank not in {known.local_rank for known in self.deaths}:
            self.deaths.append(death)

    @property
    def log(self) -> list[str]:
        """The last lines before torchrun reported a death."""
        return list(self._lines)

    def poll(self, workers: Callable[[], list[int]]) -> int | None:
        """The exit code once it has ended. A worker's death ends the rest, without waiting.

        (torchrun itself gives the pod's other workers 30 s, which they'd spend in a collective
        that can't end, before it says who has died.) `workers`: their process ids.
        """
        now = time.monotonic()
        if self._closing_at and now - self._closing_at > LAST_WORDS_SECONDS and not self.deaths:
            self.has_killed = True
            for worker in workers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
        if self._died_at and now - self._died_at > LAST_WORDS_SECONDS:
            self.kill()
        code = self._process.poll()
        if code is not None:
            self._reader.join(timeout=2)
        return code

    def kill(self) -> None:
        """End torchrun and everything that it started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def command(task: TrainTask, node_rank: int, work: Path) -> list[str]:
    """Static rendezvous: the ranks are what the operator says, and nothing is restarted here."""
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={task.nodes}",
        f"--node-rank={node_rank}",
        f"--nproc-per-node={task.processes_per_node}",
        f"--master-addr={task.master_host}",
        f"--master-port={task.master_port}",
        "--max-restarts=0",
        "--module",
        "finetune_trainer.worker",
        str(work),
    ]


def environment(task: TrainTask, inherited: dict[str, str]) -> dict[str, str]:
    """The workers' environment: the pod's own, the accelerator, and threads that fit the CPUs."""
    threads = max(1, available_cpus() // task.processes_per_node)
    added = {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # everything is in the work folder
    }
    if task.accelerator == "cpu":
        added |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**added, **inherited}


def available_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """The CPUs this container may use: its quota where it has one, else what it may run on."""
    cpus = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = (cgroup / "cpu.max").read_text().split()
        cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def memory_kills(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this container the kernel has killed for memory."""
    with contextlib.suppress(OSError, ValueError):
        for line in (cgroup / "memory.events").read_text().splitlines():
            name, count = line.split()
            if name == "oom_kill":
                return int(count)
    return 0


def ticks(seconds: float) -> Iterator[None]:
    """Again and again, with a pause in between."""
    while True:
        yield
        time.sleep(seconds)
