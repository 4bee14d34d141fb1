"""The pod's entry point: starts the ranks, downloads, waits, and reports the outcome."""

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
)
from finetune_api.outcome import Outcome
from finetune_api.tasks import TrainTask
from finetune_data.termination import finish
from finetune_trainer import failures
from finetune_trainer.errors import RankFailure, failure_from_exception
from finetune_trainer.launcher import rank_processes
from finetune_trainer.launcher.cgroup import memory_kills
from finetune_trainer.launcher.rank_processes import RankProcesses
from finetune_trainer.launcher.root_cause import PodEvidence, find_root_cause
from finetune_trainer.workdir import WorkDir

if TYPE_CHECKING:
    from finetune_trainer.launcher.downloads import Downloads

RESOLVE_SECONDS = 300  # the headless Service may appear after the pod
POLL_SECONDS = 0.1
ECHO_SECONDS = 5.0  # for the pod with the root cause to end (its ranks have 2 s to report)


def main() -> int:
    """Run one pod of a training. FINETUNE_TASK holds the task, JOB_COMPLETION_INDEX the node."""
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
        return finish(Outcome(failure=failures.invalid_task(error)), options.termination_log)
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop.handle)
    outcome = run(task, node_rank, options.work_folder, stop)
    if outcome is None:
        return EXIT_OK
    code = finish(outcome, options.termination_log)
    if outcome.failure is not None:
        print(outcome.failure.message, file=sys.stderr, flush=True)
        if outcome.failure.exit_code == EXIT_PREEMPTED:
            return EXIT_PREEMPTED
    return code


class StopSignal:
    """Whether the pod has received SIGTERM or SIGINT."""

    is_received = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.is_received = True


def run(task: TrainTask, node_rank: int, folder: Path, stop: StopSignal) -> Outcome | None:
    """Run the pod to its end. None: this pod has no outcome to report."""
    folder.mkdir(parents=True, exist_ok=True)
    workdir = WorkDir(folder)
    first_rank = node_rank * task.processes_per_node
    ranks = rank_processes.start(task, node_rank, workdir)  # first: their imports take longest
    from finetune_data.lookup.published import find_published
    from finetune_storage.connect import open_storage
    from finetune_trainer.attempt_fence import AttemptFence
    from finetune_trainer.launcher.downloads import Downloads

    try:
        storage = open_storage()
        if (published := find_published(task.run, storage)) is not None:
            print("an earlier attempt has already published the model", flush=True)
            return published if node_rank == 0 else None
        AttemptFence(task.run.layout, storage, task.attempt).check()
        downloads = Downloads(
            *(task, workdir, storage),
            before_release=lambda: wait_for_name(task.master_host, stop),
        )
        downloads.start()
        kills = memory_kills()
        _wait(ranks, workdir, downloads, stop, ranks_per_node=task.processes_per_node)
        ranks.close()
        evidence = PodEvidence(
            first_rank=first_rank,
            logs=ranks.logs,
            was_out_of_memory=memory_kills() > kills,
            has_killed=ranks.has_killed,
        )
        return _outcome(ranks, workdir, evidence, stop, is_only_pod=task.nodes == 1)
    except Exception as error:
        if not isinstance(error, FailureError):
            traceback.print_exc()
        return Outcome(failure=failure_from_exception(error, first_rank).failure)
    finally:
        ranks.close()


def _wait(
    ranks: RankProcesses,
    workdir: WorkDir,
    downloads: "Downloads",
    stop: StopSignal,
    *,
    ranks_per_node: int,
) -> None:
    """Return when all ranks have exited, or when the pod may stop before the training starts."""
    is_stop_requested = False
    while not ranks.has_ended():
        if downloads.error is not None:
            raise downloads.error
        if stop.is_received and not is_stop_requested:
            is_stop_requested = True
            if not workdir.is_handling_sigterm(ranks_per_node):
                return  # no step is lost
            ranks.request_stop()
        time.sleep(POLL_SECONDS)


def _outcome(
    ranks: RankProcesses,
    workdir: WorkDir,
    evidence: PodEvidence,
    stop: StopSignal,
    *,
    is_only_pod: bool,
) -> Outcome | None:
    """The outcome of the pod, from the exits of its ranks and the outcomes that they wrote."""
    written = workdir.read_outcomes()
    outcomes = [found.outcome for found in written.values()]
    if not ranks.failed_exits:
        if stop.is_received and not outcomes:
            return Outcome(failure=failures.stopped_before_training())
        return next(iter(outcomes), None)
    reported = {
        local_rank: RankFailure(found.outcome.failure, found.is_echo)
        for local_rank, found in written.items()
        if found.outcome.failure is not None
    }
    cause = find_root_cause(ranks.failed_exits, reported, evidence)
    assert cause is not None
    if cause.is_echo and not is_only_pod:
        _let_the_cause_end_first(stop)
    steps = (found.resumed_from_step for found in outcomes)
    step = next((step for step in steps if step is not None), None)
    return Outcome(failure=cause.failure, resumed_from_step=step)


def _let_the_cause_end_first(stop: StopSignal, seconds: float = ECHO_SECONDS) -> None:
    """The first pod that fails ends the Job, which deletes the others: let it be the cause."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not stop.is_received:
        time.sleep(POLL_SECONDS)


def wait_for_name(host: str, stop: StopSignal, seconds: float = RESOLVE_SECONDS) -> None:
    """Return when the DNS name of rank 0's pod resolves. Raises FailureError after `seconds`."""
    start = time.monotonic()
    printed = start - 10
    while not stop.is_received:
        try:
            socket.getaddrinfo(host, None)
            return
        except OSError as error:
            now = time.monotonic()
            if now - start > seconds:
                raise FailureError(failures.unresolved_name(host, seconds, error)) from error
            if now - printed >= 10:
                printed = now
                print(f"waiting for {host} to resolve ({now - start:.0f} s)", flush=True)
        time.sleep(0.5)
