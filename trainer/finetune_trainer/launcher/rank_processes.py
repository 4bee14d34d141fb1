"""The pod's ranks as child processes: their output, their exit codes, and the order of failures.

Replaces torchrun with a static rendezvous and no restarts, for two reasons: torchrun imports torch
(two seconds and 650 MB per pod), and it reports a failure in a log, not as an exit status.
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
from finetune_trainer.hardware import nccl_log
from finetune_trainer.launcher.cgroup import available_cpus
from finetune_trainer.launcher.root_cause import RankExit
from finetune_trainer.workdir import WorkDir

RANK_MODULE = "finetune_trainer.rank.main"
LOG_LINES = 12
# Packed rows differ in length, and fixed segments fragment. Pinned buffers of more than 1 MB have
# their exact size: torch otherwise rounds up to a power of two, and caches what is freed.
ALLOCATOR = "expandable_segments:True,pinned_max_cached_size_mb:1"
GRACE_SECONDS = 2.0  # after the first failure, for the other ranks to report theirs


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
        """The exit code, or None while the process runs; negative: the signal."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the rank and to its child processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Kill the process group, and read the output to its end."""
        self.send(signal.SIGKILL)
        self._process.wait()
        self._reader.join(timeout=2)


class RankProcesses:
    """All ranks of the pod. When one fails, the others are killed after a grace period."""

    def __init__(
        self, ranks: Sequence[RankProcess], *, grace_seconds: float = GRACE_SECONDS
    ) -> None:
        self._ranks = ranks
        self._grace_seconds = grace_seconds
        self._failed_at: float | None = None
        self.failed_exits: list[RankExit] = []  # in the order of their time
        self.has_killed = False

    @property
    def logs(self) -> dict[int, list[str]]:
        """The last lines of each rank, by local rank."""
        return {rank.local_rank: list(rank.lines) for rank in self._ranks}

    def has_ended(self) -> bool:
        """Whether all ranks have exited. Call it repeatedly: it also enforces the grace period."""
        now = time.monotonic()
        failed = {rank_exit.local_rank for rank_exit in self.failed_exits}
        codes = {rank.local_rank: rank.poll() for rank in self._ranks}
        for local_rank, code in codes.items():
            if code and local_rank not in failed:
                self._failed_at = self._failed_at or now
                self.failed_exits.append(RankExit(local_rank=local_rank, exit_code=code))
        is_over = None not in codes.values()
        if self._failed_at and now - self._failed_at > self._grace_seconds and not is_over:
            self.has_killed = True
            for rank in self._ranks:
                rank.send(signal.SIGKILL)
        return is_over

    def request_stop(self) -> None:
        """Send SIGTERM to each rank; each one stops after its current step."""
        for rank in self._ranks:
            if rank.poll() is None:
                rank.send(signal.SIGTERM)

    def close(self) -> None:
        """Kill all remaining processes."""
        for rank in self._ranks:
            rank.close()


def start(task: TrainTask, node_rank: int, workdir: WorkDir) -> RankProcesses:
    """Start every rank of this pod."""
    command = [sys.executable, "-m", RANK_MODULE, str(workdir.root)]

    def started(rank: int) -> RankProcess:
        log = workdir.nccl_log(rank)
        own = environment(task, node_rank, rank, dict(os.environ), nccl_file=log)
        return RankProcess(command, own, rank)

    return RankProcesses([started(rank) for rank in range(task.processes_per_node)])


def environment(
    task: TrainTask,
    node_rank: int,
    local_rank: int,
    inherited: dict[str, str],
    *,
    nccl_file: Path | None = None,
) -> dict[str, str]:
    """The environment of a rank: the pod's own, the task, and torch.distributed's `env://` names.

    The task and the coordinates replace inherited values; the other settings are defaults.
    nccl_file: where NCCL of this rank writes its log if there are several nodes.
    """
    ranks_per_node = task.processes_per_node
    defaults = {
        "OMP_NUM_THREADS": str(max(1, available_cpus() // ranks_per_node)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # all files are in the working directory
    }
    if task.accelerator == "cpu":
        defaults |= {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    elif "PYTORCH_CUDA_ALLOC_CONF" not in inherited:  # the old name, which torch reads first
        defaults["PYTORCH_ALLOC_CONF"] = ALLOCATOR
    if task.accelerator == "nvidia" and task.nodes > 1 and nccl_file is not None:
        defaults |= nccl_log.settings(inherited, nccl_file)
    fixed = {
        ENV_TASK: task.model_dump_json(),
        "RANK": node_rank * ranks_per_node + local_rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": task.nodes * ranks_per_node,
        "LOCAL_WORLD_SIZE": ranks_per_node,
        "MASTER_ADDR": task.master_host,
        "MASTER_PORT": task.master_port,
    }
    return {**defaults, **inherited, **{name: str(value) for name, value in fixed.items()}}
