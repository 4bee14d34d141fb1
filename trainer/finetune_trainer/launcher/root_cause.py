"""Which of a pod's failures is the cause: its workers' own words, and how they ended. Pure."""

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure
from finetune_trainer.errors import ECHO


@dataclass(frozen=True)
class Death:
    """A worker that ended badly."""

    local_rank: int
    exit_code: int  # negative: the signal


@dataclass(frozen=True)
class PodEvidence:
    """What the launcher found around its workers' ends."""

    first_rank: int  # of this pod
    logs: Mapping[int, list[str]]  # the last lines of each worker, by local rank
    was_out_of_memory: bool  # the kernel killed a process of this pod for memory
    has_killed: bool  # the launcher itself killed workers that would not end


def find_cause(
    deaths: Sequence[Death], said: Mapping[int, Failure], scene: PodEvidence
) -> Failure | None:
    """`deaths`: the first one first; `said`: by local rank, what workers left. None: neither.

    The first death counts, unless it is the echo of another: a lost connection, or SIGTERM. Those
    that the launcher has ended say nothing.
    """
    candidates = []
    for place, death in enumerate(deaths):
        own = said.get(death.local_rank)
        if own is not None:
            candidates.append(own)
        elif place == 0 or not _was_ended_by_us(death, scene):
            candidates.append(explain_death(death, scene))
    candidates += [failure for failure in said.values() if failure not in candidates]
    return min(candidates, key=_is_echo, default=None)


def _was_ended_by_us(death: Death, scene: PodEvidence) -> bool:
    return death.exit_code == -signal.SIGTERM or (
        scene.has_killed and death.exit_code == -signal.SIGKILL
    )


def _is_echo(failure: Failure) -> int:
    return 1 if failure.hint == ECHO else 2 if failure.exit_code == EXIT_PREEMPTED else 0


def explain_death(death: Death, scene: PodEvidence) -> Failure:
    """A worker that could not say itself what happened."""
    rank = scene.first_rank + death.local_rank
    code = death.exit_code if death.exit_code >= 0 else 128 - death.exit_code
    if scene.was_out_of_memory and death.exit_code == -signal.SIGKILL:
        return Failure(
            code=Reason.OUT_OF_MEMORY,
            message=f"rank {rank} used more memory than the pod's limit and was killed",
            hint="raise resources.memory, or lower hyperparameters.maxSequenceLength",
            rank=rank,
            exit_code=code,
            log=scene.logs.get(death.local_rank, []),
        )
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} {_how(death.exit_code)}",
        rank=rank,
        exit_code=code,
        log=scene.logs.get(death.local_rank, []),
    )


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-exit_code} ({name})"
