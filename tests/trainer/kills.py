"""Starts a rank's process many times in a short time, by forking a server with all imports.

The process is `finetune_trainer.rank.main` as the launcher starts it; its S3 and its end are real.
"""

import multiprocessing
import os
import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from finetune_api.names import ENV_TASK
from finetune_api.outcome import ProgressReport
from finetune_api.tasks import TrainTask
from finetune_trainer.launcher.downloads import Downloads
from finetune_trainer.workdir import WorkDir
from tests.trainer import support

PRELOADED = ["torch", "transformers", "deepspeed", "boto3", "finetune_trainer.rank.lifecycle"]


def start(task: TrainTask, folder: Path) -> "multiprocessing.context.ForkServerProcess":
    """Start one rank, with the launcher's downloads in its working directory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run_rank, args=(task.to_json(), str(folder)))
    process.start()
    return process


def _run_rank(task: str, folder: str) -> None:
    from finetune_storage.connect import open_storage
    from finetune_trainer.rank import main as rank

    log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    workdir = WorkDir(Path(folder))
    workdir.root.mkdir(parents=True)
    Downloads(TrainTask.model_validate_json(task), workdir, open_storage()).run()
    os.environ |= {
        **{ENV_TASK: task, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(support.free_port())},
        **{"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""},
    }
    import torch

    torch.set_num_threads(1)
    os._exit(rank.main(workdir.root))


def kill_when(
    process: "multiprocessing.context.ForkServerProcess", is_time: Callable[[], bool]
) -> bool:
    """Kill the process when `is_time`; return whether it was still alive."""
    end = time.monotonic() + 60
    while process.is_alive() and not is_time():
        assert time.monotonic() < end
        time.sleep(0.002)
    was_alive = process.is_alive()
    process.kill()
    process.join()
    return was_alive


def step_of(task: TrainTask) -> int:
    """The step that /progress reports; 0 before the server starts."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{task.progress_port}/progress") as answer:
            return ProgressReport.model_validate_json(answer.read()).step
    except (OSError, HTTPException):  # it can end during its answer
        return 0
