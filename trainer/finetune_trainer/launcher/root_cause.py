"""Selects the root cause among a pod's failures, from the ranks' reports and exit codes. Pure."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.names import EXIT_PREEMPTED
from finetune_api.outcome import Failure
from finetune_trainer import failures
from finetune_trainer.errors import RankFailure


@dataclass(frozen=True)
class RankExit:
    """The exit of a rank that failed."""

    local_rank: int
    exit_code: int  # negative: the signal


@dataclass(frozen=True)
class PodEvidence:
    """The launcher's observations around the exits of its ranks."""

    first_rank: int  # of this pod
    logs: Mapping[int, list[str]]  # the last lines of each rank, by local rank
    was_out_of_memory: bool  # the kernel killed a process of this pod for memory
    has_killed: bool  # the launcher itself killed ranks that did not exit


def find_root_cause(
    exits: Sequence[RankExit], reported: Mapping[int, RankFailure], evidence: PodEvidence
) -> RankFailure | None:
    """The first exit counts, unless another failure caused it: a lost connection, or SIGTERM.

    exits: in the order of their time. reported: the failures that ranks reported, by local rank.
    Ranks that the launcher killed are not candidates. None: there are neither exits nor reports.
    """
    candidates = []
    for index, rank_exit in enumerate(exits):
        own = reported.get(rank_exit.local_rank)
        if own is not None:
            candidates.append(own)
        elif index == 0 or not _was_ended_by_launcher(rank_exit, evidence):
            candidates.append(RankFailure(failure_from_exit(rank_exit, evidence)))
    candidates += [failure for failure in reported.values() if failure not in candidates]
    return min(candidates, key=_priority, default=None)


def _was_ended_by_launcher(rank_exit: RankExit, evidence: PodEvidence) -> bool:
    return rank_exit.exit_code == -signal.SIGTERM or (
        evidence.has_killed and rank_exit.exit_code == -signal.SIGKILL
    )


def _priority(found: RankFailure) -> int:
    """0: a cause of its own. 1: the loss of another rank. 2: a stop on request."""
    if found.is_echo:
        return 1
    return 2 if found.failure.exit_code == EXIT_PREEMPTED else 0


def failure_from_exit(rank_exit: RankExit, evidence: PodEvidence) -> Failure:
    """The failure of a rank that exited without a report."""
    rank = evidence.first_rank + rank_exit.local_rank
    log = evidence.logs.get(rank_exit.local_rank, [])
    if rank_exit.exit_code >= 0:
        return failures.exited(rank, rank_exit.exit_code, log=log)
    number = -rank_exit.exit_code
    exit_code = 128 + number  # as a shell reports it
    if evidence.was_out_of_memory and number == signal.SIGKILL:
        detail = "the kernel killed it, because the pod or its node had no memory left"
        return failures.out_of_host_memory(rank, detail, exit_code=exit_code, log=log)
    return failures.killed(rank, number, _signal_name(number), exit_code=exit_code, log=log)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
