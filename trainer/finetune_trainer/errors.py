"""From what went wrong in a worker to a Failure that a person can act on."""

import traceback

from finetune_api.errors import FailureError
from finetune_api.names import EXIT_PREEMPTED, Reason
from finetune_api.outcome import Failure

LOG_LINES = 10
ECHO = "the cause is on the rank that ended first"  # the hint of a failure that another one caused

# What gloo, NCCL and the store say when the process at the other end is gone.
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


class Preempted(Exception):  # noqa: N818 - nothing is wrong
    """A rank was asked to stop; all stop after the same step."""

    def __init__(self, step: int, checkpoint_step: int | None) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step
        self.checkpoint_step = checkpoint_step


def nan_loss(step: int, what: str, learning_rate: float) -> FailureError:
    """The loss or the gradient is no number any more; another attempt would meet it again."""
    return FailureError(
        Failure(
            code=Reason.NAN_LOSS,
            message=f"the {what} became NaN or infinite at step {step} "
            f"(learning rate {learning_rate:.3g})",
            hint="lower learningRateMultiplier or raise warmupRatio; look for broken examples",
            param="hyperparameters.learningRateMultiplier",
        )
    )


def explain(error: BaseException, rank: int) -> Failure:
    """The Failure for what ended this rank."""
    if isinstance(error, FailureError):
        return error.failure.replace(rank=rank)
    if isinstance(error, Preempted):
        saved = error.checkpoint_step
        return Failure(
            code=Reason.POD_LOST,
            message=f"stopped after step {error.step}: a pod was asked to end (SIGTERM); "
            + (f"the checkpoint of step {saved} is kept" if saved else "there's no checkpoint yet"),
            rank=rank,
            exit_code=EXIT_PREEMPTED,
        )
    log = _log(error)
    text = f"{type(error).__name__}: {error}".lower()
    if isinstance(error, MemoryError) or any(words in text for words in _HOST_MEMORY):
        return Failure(
            code=Reason.OUT_OF_MEMORY,
            message=f"rank {rank} found no more memory: {_first_line(error)}",
            hint="raise resources.memory, lower hyperparameters.maxSequenceLength",
            rank=rank,
            log=log,
        )
    if type(error).__name__ == "OutOfMemoryError":
        return Failure(
            code=Reason.OUT_OF_MEMORY,
            message=f"rank {rank} ran out of GPU memory: {_first_line(error)}",
            hint="use more GPUs, a higher deepspeed.zeroStage or a shorter maxSequenceLength",
            rank=rank,
            log=log,
        )
    if _is_echo(error, text):
        return Failure(
            code=Reason.RANK_CRASHED,
            message=f"rank {rank} lost the connection to another rank: "
            + _first_line(error).split(". ")[0],
            hint=ECHO,
            rank=rank,
            exit_code=1,
            log=log,
        )
    return Failure(
        code=Reason.RANK_CRASHED,
        message=f"rank {rank} ended with {type(error).__name__}: {_first_line(error)}",
        rank=rank,
        exit_code=1,
        log=log,
    )


def _is_echo(error: BaseException, text: str) -> bool:
    """The process at the other end is gone: said in words, or raised inside a collective."""
    frames = traceback.extract_tb(error.__traceback__)
    is_in_collective = bool(frames) and _COLLECTIVES in frames[-1].filename
    return (
        type(error).__name__.startswith("Dist")
        or any(words in text for words in _PEER_GONE)
        or (isinstance(error, RuntimeError) and is_in_collective)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")[:300]


def _log(error: BaseException) -> list[str]:
    lines = "".join(traceback.format_exception(error)).splitlines()
    return [line for line in lines if line.strip()][-LOG_LINES:]
