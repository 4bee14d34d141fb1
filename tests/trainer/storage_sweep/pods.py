"""Pods as processes behind a proxy: forked from a server with all imports, killed at a write."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from finetune_api.names import ENV_BASE_REVISION, ENV_TASK
from finetune_api.tasks import PrepareTask, TrainTask
from tests.support.proxy import Fault, FaultyProxy, Orphaned, Seen, s3_error

PRELOADED = [
    *("torch", "transformers", "deepspeed", "boto3"),
    *("finetune_trainer.rank.lifecycle", "finetune_data.prepare.job"),
    *("finetune_trainer.base_check.check", "finetune_trainer.launcher.downloads"),
    *("finetune_trainer.launcher.rank_processes", "finetune_trainer.rank.main"),
    *("transformers.models.llama.modeling_llama", "transformers.models.auto.modeling_auto"),
    *("transformers.models.auto.tokenization_auto", "transformers.generation"),
    *("torch._dynamo", "torch._functorch.aot_autograd", "networkx"),
    *("deepspeed.runtime.engine", "tests.trainer.support", "tests.trainer.storage_sweep.pods"),
]
ECHO_SECONDS = 4.0  # for a rank that has lost its peer to end by itself
POD_SECONDS = 600.0  # a pod takes seconds; a busy machine must not change the result

Moment = Literal["before", "after"]


@dataclass(frozen=True)
class Kill:
    """SIGKILL to the pod that sends this write, before or after S3 handles it."""

    write: str  # "rank 0: PUT results.csv #2"
    moment: Moment

    def __str__(self) -> str:
        return f"{self.moment} {self.write}"


class Pod:
    """One process and its proxy; a context manager."""

    def __init__(self, name: str, target: str, prefix: str, kill: Kill | None) -> None:
        """target: the S3 server. prefix: of the paths, which the names of writes leave out."""
        self.name = name
        self.writes: list[str] = []
        self.was_killed = False
        self._prefix = prefix
        self._kill = kill
        self._counts: Counter[str] = Counter()
        self._proxy = FaultyProxy(target)
        self._process: ForkServerProcess | None = None

    def __enter__(self) -> Self:
        self._proxy.rule = self._rule
        self._proxy.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        self._proxy.__exit__(kind, error, trace)

    def start(self, run: Callable[[str, str, dict[str, str]], None], task: str, log: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        environment = {"AWS_ENDPOINT_URL": self._proxy.url, "AWS_MAX_ATTEMPTS": "2"}
        self._process = context.Process(target=run, args=(task, str(log), environment))
        self._process.start()

    @property
    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def wait(self, seconds: float) -> int | None:
        """The exit code; None if the process still runs."""
        assert self._process is not None
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> None:
        """Kill the process and its children, such as one that uploads a shard."""
        if self._process is None or self._process.pid is None or not self._process.is_alive():
            return
        for pid in (*_children(self._process.pid), self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _rule(self, seen: Seen) -> Fault | None:
        if not seen.number:
            return None
        place = seen.path.partition(f"{self._prefix}/")[2] or seen.path
        text = f"{self.name}: {seen.method} {place}"
        self._counts[text] += 1
        write = f"{text} #{self._counts[text]}"
        self.writes.append(write)
        if self._kill is None or self.was_killed or write != self._kill.write:
            return None
        self.was_killed = True
        if self._kill.moment == "after":
            return Orphaned(self.kill)
        self.kill()
        return s3_error(503, "SlowDown")  # nobody is there to read it


def wait_for_all(pods: list[Pod]) -> list[int | None]:
    """The exit codes. After the death of one pod, the others end by themselves or are killed."""
    end = time.monotonic() + POD_SECONDS
    while any(pod.is_alive for pod in pods):
        if any(not pod.is_alive and pod.wait(0) for pod in pods):
            end = min(end, time.monotonic() + ECHO_SECONDS)
        if time.monotonic() > end:
            for pod in pods:
                pod.kill()
        time.sleep(0.02)
    return [pod.wait(5) for pod in pods]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in path.read_text().split()]
    return [pid for child in found for pid in (*_children(child), child)]


# --- in the processes ---


def run_rank(text: str, folder: str, environment: dict[str, str]) -> None:
    """What the launcher and its only rank do; the rank's node is in the environment."""
    _begin(folder, environment)
    from finetune_data.lookup.published import find_published
    from finetune_storage.connect import open_storage
    from finetune_trainer.attempt_fence import AttemptFence
    from finetune_trainer.launcher.downloads import Downloads
    from finetune_trainer.launcher.rank_processes import environment as rank_environment
    from finetune_trainer.rank import main as rank
    from finetune_trainer.workdir import WorkDir

    node, _, task_text = text.partition(" ")
    task = TrainTask.model_validate_json(task_text)
    storage = open_storage()
    if find_published(task.run, storage) is not None:
        print("an earlier attempt has already published the model", flush=True)
        os._exit(0)
    AttemptFence(task.run.layout, storage, task.attempt).check()
    workdir = WorkDir(Path(folder))
    downloads = Downloads(task, workdir, storage)
    downloads.run()
    if downloads.error is not None:
        raise downloads.error
    os.environ |= rank_environment(task, int(node), 0, dict(os.environ))
    import torch

    torch.set_num_threads(1)
    os._exit(rank.main(workdir.root))


def run_prepare(text: str, folder: str, environment: dict[str, str]) -> None:
    """What the two containers of the prepare pod do, one after the other."""
    _begin(folder, {**environment, ENV_TASK: text, ENV_BASE_REVISION: f"{folder}/base.json"})
    from finetune_data.prepare.main import POD
    from finetune_data.termination import exit_code
    from finetune_storage.connect import open_storage
    from finetune_trainer.base_check.job import check

    tempfile.tempdir = folder
    check(PrepareTask.model_validate_json(text), open_storage(), Path(folder) / "checked")
    outcome = POD.run(text)
    (Path(folder) / "outcome.json").write_text(outcome.to_termination_message())
    os._exit(exit_code(outcome.failure))


def _begin(folder: str, environment: dict[str, str]) -> None:
    Path(folder).mkdir(parents=True)
    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= environment
