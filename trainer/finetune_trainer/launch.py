"""The pod's entry: fetch, start the workers, watch them, and say what happened."""

import argparse
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from finetune_api.names import (
    ENV_TASK,
    EXIT_OK,
    EXIT_PREEMPTED,
    TERMINATION_MESSAGE_PATH,
    Reason,
)
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import TrainTask
from finetune_data.failures import FailureError
from finetune_data.storage import Storage
from finetune_data.termination import finish
from finetune_trainer import torchrun
from finetune_trainer.autopsy import ECHO, Scene, find_cause
from finetune_trainer.failures import explain
from finetune_trainer.fetch import Fetch
from finetune_trainer.publish import find_published
from finetune_trainer.work import WorkFolder

RESOLVE_SECONDS = 300  # the Service may appear after the pod
POLL_SECONDS = 0.1
ECHO_SECONDS = 5.0  # what another pod may need to say why it ended (2 s for its workers' words)


def main() -> int:
    """`python -m finetune_trainer`: the task is in FINETUNE_TASK, the node's rank in the index."""
    parser = argparse.ArgumentParser(prog="finetune_trainer", description=main.__doc__)
    parser.add_argument(
        "--work-folder", type=Path, default=Path(tempfile.gettempdir()) / "finetune"
    )
    parser.add_argument("--termination-log", default=TERMINATION_MESSAGE_PATH)
    options = parser.parse_args()
    try:
        task = TrainTask.model_validate_json(os.environ[ENV_TASK])
        node_rank = int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    except (KeyError, ValueError, ValidationError) as error:
        unclear = Failure(
            code=Reason.INTERNAL, message=f"this pod does not know what to do: {error}"
        )
        return finish(_failed(unclear), options.termination_log)
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.note)
    outcome = run(task, node_rank, options.work_folder, stop)
    if outcome is None:
        return EXIT_OK
    code = finish(outcome, options.termination_log)
    if outcome.failure is not None:
        print(outcome.failure.message, file=sys.stderr, flush=True)
        if outcome.failure.exit_code == EXIT_PREEMPTED:
            return EXIT_PREEMPTED
    return code


class _Stop:
    """Remembers that the pod was asked to stop."""

    is_asked = False

    def note(self, number: int, frame: FrameType | None) -> None:
        self.is_asked = True


def run(task: TrainTask, node_rank: int, folder: Path, stop: _Stop) -> Outcome | None:
    """From the first download to the last worker's end; None: nothing to report from this pod."""
    folder.mkdir(parents=True, exist_ok=True)
    work = WorkFolder(folder)
    first_rank = node_rank * task.processes_per_node
    try:
        storage = Storage.from_environment()
        if (published := find_published(task, storage)) is not None:
            print("an earlier attempt has published the model already", flush=True)
            return published if node_rank == 0 else None
        fetch = Fetch(task, work, storage)
        fetch.start()
        wait_for_name(task.master_host, stop)
        return _watch(task, node_rank, work, fetch, stop)
    except FailureError as error:
        return _failed(error.failure.replace(rank=first_rank))
    except Exception as error:
        traceback.print_exc()
        return _failed(explain(error, first_rank))


def _watch(
    task: TrainTask, node_rank: int, work: WorkFolder, fetch: Fetch, stop: _Stop
) -> Outcome | None:
    memory_kills = torchrun.memory_kills()
    child = torchrun.Torchrun(
        torchrun.command(task, node_rank, work.root), torchrun.environment(task, dict(os.environ))
    )
    was_told = False
    code = None
    try:
        for _ in torchrun.ticks(POLL_SECONDS):
            if (code := child.poll(work.worker_ids)) is not None:
                break
            if fetch.error is not None:
                raise fetch.error
            if stop.is_asked and not was_told:
                was_told = True
                if not _pass_on(work):
                    break
    finally:
        child.kill()
    outcomes = work.read_outcomes()
    if code == 0:
        return next(iter(outcomes.values()), None)
    scene = Scene(
        first_rank=node_rank * task.processes_per_node,
        log=child.log,
        was_out_of_memory=torchrun.memory_kills() > memory_kills,
        has_killed=child.has_killed,
    )
    said = {rank: found.failure for rank, found in outcomes.items() if found.failure is not None}
    cause = find_cause(child.deaths, said, scene)
    if cause is not None:
        if cause.hint == ECHO and task.nodes > 1:
            _give_way(stop)
        return _failed(cause)
    if stop.is_asked:
        message = "the pod was asked to stop (SIGTERM) before the training could start"
        return _failed(Failure(code=Reason.POD_LOST, message=message, exit_code=EXIT_PREEMPTED))
    message = f"torchrun ended with exit code {code} and did not say why"
    return _failed(Failure(code=Reason.RANK_CRASHED, message=message, log=child.log))


def _give_way(stop: _Stop) -> None:
    """The pod with the cause ends first: the Job fails, and removes the pods that still go on."""
    until = time.monotonic() + ECHO_SECONDS
    while time.monotonic() < until and not stop.is_asked:
        time.sleep(POLL_SECONDS)


def _pass_on(work: WorkFolder) -> bool:
    """SIGTERM for the workers alone: torchrun would answer it by killing them within 30 s."""
    workers = work.worker_ids()
    for worker in workers:
        try:
            os.kill(worker, signal.SIGTERM)
        except ProcessLookupError:
            continue
    return bool(workers)


def wait_for_name(host: str, stop: _Stop, seconds: float = RESOLVE_SECONDS) -> None:
    """Until the master's DNS name resolves. Raises FailureError after `seconds`."""
    begin = time.monotonic()
    told = begin - 10
    while not stop.is_asked:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            now = time.monotonic()
            if now - begin > seconds:
                raise FailureError.of(
                    Reason.POD_LOST,
                    f"the name of rank 0's pod, {host}, did not resolve within {seconds:.0f} s "
                    f"({error}): its pod is not there, or the cluster's DNS does not work",
                ) from error
            if now - told >= 10:
                told = now
                print(f"waiting for {host} to resolve ({now - begin:.0f} s)", flush=True)
        time.sleep(0.5)


def _failed(failure: Failure) -> Outcome:
    return Outcome(failure=failure)
