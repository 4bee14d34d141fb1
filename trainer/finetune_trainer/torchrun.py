"""torchrun as a child: its command line, its output, and who of its workers died of what."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import TrainTask

LOG_LINES = 12
LAST_WORDS_SECONDS = 2.0  # for the other workers of the pod to write down what they saw

_DEATH = re.compile(r"failed \(exitcode: (-?\d+)\) local_rank: (\d+)")


@dataclass(frozen=True)
class Death:
    """The first worker of this pod that ended badly."""

    local_rank: int
    exit_code: int  # negative: the signal


class Torchrun:
    """The running child, in a process group of its own."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.death: Death | None = None
        self._died_at = 0.0
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
            found = _DEATH.search(line)
            if found is not None and self.death is None:
                self._died_at = time.monotonic()
                self.death = Death(local_rank=int(found[2]), exit_code=int(found[1]))
            if self.death is None and line.strip():
                self._lines.append(line.rstrip()[:300])

    @property
    def log(self) -> list[str]:
        """The last lines before torchrun reported a death."""
        return list(self._lines)

    def poll(self) -> int | None:
        """The exit code once it has ended. A worker's death ends the rest, without waiting.

        (torchrun itself would give the pod's other workers 30 s, which they'd spend in a
        collective that can't end.)
        """
        if self.death is not None and time.monotonic() - self._died_at > LAST_WORDS_SECONDS:
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


def explain_death(death: Death, rank: int, log: list[str], *, killed_for_memory: bool) -> Failure:
    """A worker that could not say itself what happened."""
    code = death.exit_code if death.exit_code >= 0 else 128 - death.exit_code
    if killed_for_memory:
        return Failure(
            code=Reason.OUT_OF_MEMORY,
            message=f"rank {rank} used more memory than the pod's limit and was killed",
            hint="raise resources.memory, or lower hyperparameters.maxSequenceLength",
            rank=rank,
            exit_code=code,
            log=log,
        )
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} {_how(death.exit_code)}",
        rank=rank,
        exit_code=code,
        log=log,
    )


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-exit_code} ({name})"


def ticks(seconds: float) -> Iterator[None]:
    """Again and again, with a pause in between."""
    while True:
        yield
        time.sleep(seconds)
