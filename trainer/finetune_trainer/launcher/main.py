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
from typing import TYPE_CHECKING

from pydantic import ValidationError

from finetune_api.errors import FailureError
from finetune_api.names import (
    ENV_TASK,
    EXIT_OK,
    EXIT_PREEMPTED,
    TERMINATION_MESSAGE_PATH,
    Reason,
)
from finetune_api.outcome import Failure, Outcome
from finetune_api.tasks import TrainTask
from finetune_data.termination import finish
from finetune_trainer.errors import ECHO, explain
from finetune_trainer.launcher import rank_processes
from finetune_trainer.launcher.cgroup import memory_kills
from finetune_trainer.launcher.rank_processes import RankProcesses
from finetune_trainer.launcher.root_cause import PodEvidence, find_cause
from finetune_trainer.workdir import WorkDir

if TYPE_CHECKING:
    from finetune_trainer.launcher.downloads import Downloads

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
    work = WorkDir(folder)
    first_rank = node_rank * task.processes_per_node
    ranks = rank_processes.start(task, node_rank, work.root)  # their imports take the longest
    from finetune_storage.connect import open_storage
    from finetune_trainer.launcher.downloads import Downloads
    from finetune_trainer.publishing.lookup import find_published

    try:
        storage = open_storage()
        if (published := find_published(task, storage)) is not None:
            print("an earlier attempt has published the model already", flush=True)
            return published if node_rank == 0 else None
        fetch = Downloads(task, work, storage, before=lambda: wait_for_name(task.master_host, stop))
        fetch.start()
        return _watch(task, node_rank, ranks, work, fetch=fetch, stop=stop)
    except FailureError as error:
        return _failed(error.failure.replace(rank=first_rank))
    except Exception as error:
        traceback.print_exc()
        return _failed(explain(error, first_rank))
    finally:
        ranks.close()


def _watch(
    task: TrainTask,
    node_rank: int,
    ranks: RankProcesses,
    work: WorkDir,
    *,
    fetch: "Downloads",
    stop: _Stop,
) -> Outcome | None:
    kills_before = memory_kills()
    was_told = False
    while not ranks.has_ended():
        if fetch.error is not None:
            raise fetch.error
        if stop.is_asked and not was_told:
            was_told = True
            if not work.are_listening(task.processes_per_node):
                break  # nothing is lost yet
            ranks.ask_to_stop()
        time.sleep(POLL_SECONDS)
    ranks.close()
    outcomes = work.read_outcomes()
    said = {rank: found.failure for rank, found in outcomes.items() if found.failure is not None}
    if stop.is_asked and not ranks.deaths and not outcomes:
        message = "the pod was asked to stop (SIGTERM) before the training could start"
        return _failed(Failure(code=Reason.POD_LOST, message=message, exit_code=EXIT_PREEMPTED))
    if not ranks.deaths:
        return next(iter(outcomes.values()), None)
    scene = PodEvidence(
        first_rank=node_rank * task.processes_per_node,
        logs=ranks.logs,
        was_out_of_memory=memory_kills() > kills_before,
        has_killed=ranks.has_killed,
    )
    cause = find_cause(ranks.deaths, said, scene)
    assert cause is not None
    if cause.hint == ECHO and task.nodes > 1:
        _give_way(stop)
    steps = (found.resumed_from_step for found in outcomes.values())
    step = next((step for step in steps if step is not None), None)
    return _failed(cause).replace(resumed_from_step=step)


def _give_way(stop: _Stop) -> None:
    """The pod with the cause ends first: the Job fails, and removes the pods that still go on."""
    until = time.monotonic() + ECHO_SECONDS
    while time.monotonic() < until and not stop.is_asked:
        time.sleep(POLL_SECONDS)


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
