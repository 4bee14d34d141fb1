"""The pod's ranks as child processes: their output, and which of them died, and how.

What torchrun does with a static rendezvous and no restarts, without its own import of torch (two
seconds and 650 MB beside every pod's ranks) and with the kernel's word on each end instead of a
log to be read.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from finetune_api.names import ENV_TASK
from finetune_api.tasks import TrainTask
from finetune_trainer.launcher.cgroup import available_cpus
from finetune_trainer.launcher.root_cause import Death

LOG_LINES = 12
LAST_WORDS_SECONDS = 2.0  # for the other workers of the pod to write down what they saw


class RankProcess:
    """One rank, in a process group of its own."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], local_rank: int
    ) -> None:
        self.local_rank = local_rank
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self._process = subprocess.Popen(
            command,
            env=environment,
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
            if line.strip():
                self.lines.append(line.rstrip()[:300])

    def poll(self) -> int | None:
        """The exit code once it has ended; negative: the signal."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """To the worker and everything that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """After its end: nothing that it started is left, and its output is read."""
        self.send(signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=2)


class RankProcesses:
    """All ranks of the pod. One that dies ends the others, who get a moment for their words."""

    def __init__(self, workers: Sequence[RankProcess]) -> None:
        self._workers = workers
        self._died_at: float | None = None
        self.deaths: list[Death] = []  # the first one first
        self.has_killed = False

    @property
    def logs(self) -> dict[int, list[str]]:
        """The last lines of each, by local rank."""
        return {worker.local_rank: list(worker.lines) for worker in self._workers}

    def has_ended(self) -> bool:
        """Whether all have, by themselves or because one of them died."""
        now = time.monotonic()
        dead = {death.local_rank for death in self.deaths}
        codes = {worker.local_rank: worker.poll() for worker in self._workers}
        for rank, code in codes.items():
            if code and rank not in dead:
                self._died_at = self._died_at or now
                self.deaths.append(Death(local_rank=rank, exit_code=code))
        is_over = None not in codes.values()
        if self._died_at and now - self._died_at > LAST_WORDS_SECONDS and not is_over:
            self.has_killed = True
            for worker in self._workers:
                worker.send(signal.SIGKILL)
        return is_over

    def ask_to_stop(self) -> None:
        """SIGTERM; each one notes it, and ends after its step."""
        for worker in self._workers:
            if worker.poll() is None:
                worker.send(signal.SIGTERM)

    def close(self) -> None:
        """End whatever is left."""
        for worker in self._workers:
            worker.close()


def start(task: TrainTask, node_rank: int, work: Path) -> RankProcesses:
    """Every rank of this pod."""
    command = [sys.executable, "-m", "finetune_trainer.rank.main", str(work)]
    return RankProcesses(
        [
            RankProcess(command, environment(task, node_rank, rank, dict(os.environ)), rank)
            for rank in range(task.processes_per_node)
        ]
    )


def environment(
    task: TrainTask, node_rank: int, local_rank: int, inherited: dict[str, str]
) -> dict[str, str]:
    """A rank's: the pod's own, its task and place, the accelerator, and threads that fit the CPUs.

    The ranks are what the operator says: the names are torch.distributed's `env://`.
    """
    each = task.processes_per_node
    defaults = {
        "OMP_NUM_THREADS": str(max(1, available_cpus() // each)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # everything is in the work folder
    }
    if task.accelerator == "cpu":
        defaults |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    place = {
        ENV_TASK: task.model_dump_json(),
        "RANK": node_rank * each + local_rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": task.nodes * each,
        "LOCAL_WORLD_SIZE": each,
        "MASTER_ADDR": task.master_host,
        "MASTER_PORT": task.master_port,
    }
    return {**defaults, **inherited, **{name: str(value) for name, value in place.items()}}
