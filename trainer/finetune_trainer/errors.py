"""Converts the exception that ended a rank into a Failure that the user can act on."""

import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure

LOG_LINES = 10

# Messages of gloo, NCCL, and torch's TCPStore when the process at the other end is gone.
_PEER_GONE = (
    "connection closed by peer",
    "connection reset by peer",
    "connection was closed",
    "broken pipe",
    "remote process exited",
    "nccl remote error",
    "socket timeout",
    "failed to recv, got 0 bytes",
)
_COLLECTIVES = "/torch/distributed/"
_HOST_MEMORY = ("can't allocate memory", "cannot allocate memory")


@dataclass(frozen=True)
class RankFailure:
    """The failure of one rank, and whether the loss of another rank caused it."""

    failure: Failure
    is_echo: bool = False  # this rank only lost its peer; the root cause is on another rank


class Preempted(Exception):  # noqa: N818 - not an error: the pod received SIGTERM
    """A rank received SIGTERM; all ranks stop after the same step."""

    def __init__(self, step: int, checkpoint_step: int | None) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step
        self.checkpoint_step = checkpoint_step


def nan_loss(step: int, quantity: str, learning_rate: float) -> FailureError:
    """The loss or the gradient is no longer a number; a retry would fail at the same step."""
    return FailureError(
        Failure(
            code=Reason.NAN_LOSS,
            message=f"the {quantity} became NaN or infinite at step {step} "
            f"(learning rate {learning_rate:.3g})",
            hint="lower learningRateMultiplier or raise warmupRatio; "
            "check the training file for broken examples",
            param="hyperparameters.learningRateMultiplier",
        )
    )


def out_of_host_memory(
    rank: int, detail: str, *, log: Sequence[str], exit_code: int | None = None
) -> Failure:
    """An allocation failed (`detail` is the error), or the kernel killed the process."""
    return Failure(
        code=Reason.OUT_OF_MEMORY,
        message=f"rank {rank} ran out of host memory: {detail}",
        hint="raise resources.memory, or lower hyperparameters.maxSequenceLength",
        rank=rank,
        exit_code=exit_code,
        log=list(log),
    )


def rank_crash(rank: int, event: str, *, exit_code: int, log: Sequence[str]) -> Failure:
    """The rank ended without a more specific reason. event: "was killed by signal 9"."""
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} {event}",
        hint="read the last lines of the rank's log; if it crashes at the same step in every "
        "attempt, check the data and the settings",
        rank=rank,
        exit_code=exit_code,
        log=list(log),
    )


def failure_from_exception(error: BaseException, rank: int) -> RankFailure:
    """The failure of a rank that `error` ended."""
    if isinstance(error, FailureError):
        return RankFailure(error.failure.replace(rank=rank))
    if isinstance(error, Preempted):
        return RankFailure(_preemption(error, rank))
    log = _last_lines(error)
    text = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or any(message in text for message in _HOST_MEMORY):
        return RankFailure(out_of_host_memory(rank, _first_line(error), log=log))
    if type(error).__name__ == "OutOfMemoryError":
        return RankFailure(
            Failure(
                code=Reason.OUT_OF_MEMORY,
                message=f"rank {rank} ran out of GPU memory: {_first_line(error)}",
                hint="use more GPUs, a higher deepspeed.zeroStage, or a shorter maxSequenceLength",
                rank=rank,
                log=log,
            )
        )
    if _is_lost_connection(error, text):
        lost = Failure(
            code=Reason.RANK_CRASHED,
            message=f"rank {rank} lost the connection to another rank: "
            + _first_line(error).split(". ")[0],
            hint="look for the cause in the log of the rank that failed first",
            rank=rank,
            exit_code=1,
            log=log,
        )
        return RankFailure(lost, is_echo=True)
    event = f"failed with {type(error).__name__}: {_first_line(error)}"
    return RankFailure(rank_crash(rank, event, exit_code=1, log=log))


def _preemption(error: Preempted, rank: int) -> Failure:
    saved = error.checkpoint_step
    return Failure(
        code=Reason.POD_LOST,
        message=f"training stopped after step {error.step}: a pod received SIGTERM; "
        + (f"the checkpoint of step {saved} is kept" if saved else "there is no checkpoint yet"),
        rank=rank,
        exit_code=EXIT_PREEMPTED,
    )


def _is_lost_connection(error: BaseException, text: str) -> bool:
    """The process at the other end is gone: by the message, or by an error in a collective."""
    frames = traceback.extract_tb(error.__traceback__)
    is_in_collective = bool(frames) and _COLLECTIVES in frames[-1].filename
    return (
        type(error).__name__.startswith("Dist")
        or any(message in text for message in _PEER_GONE)
        or (isinstance(error, RuntimeError) and is_in_collective)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:300]


def _last_lines(error: BaseException) -> list[str]:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [line for line in lines if line.strip()][-LOG_LINES:]
