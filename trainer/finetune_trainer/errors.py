"""Classifies the exception that ended a rank."""

import errno
import traceback
from dataclasses import dataclass

from finetune_api.errors import FailureError
from finetune_api.outcome import Failure
from finetune_storage.messages import process_audience
from finetune_trainer import failures

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
_HOST_MEMORY = ("can't allocate memory", "cannot allocate memory")  # of PyTorch; prose: allow
_FULL_DISK = ("no space left on device", "disk quota exceeded")  # also of libraries in Rust


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


def failure_from_exception(error: BaseException, rank: int) -> RankFailure:
    """The failure of a rank that `error` ended."""
    if isinstance(error, FailureError):
        return RankFailure(error.failure_for(process_audience()).replace(rank=rank))
    if isinstance(error, Preempted):
        return RankFailure(failures.stopped(rank, error.step, error.checkpoint_step))
    name, detail, log = type(error).__name__, _first_line(error), _last_lines(error)
    text = f"{name}: {error}".lower()
    if isinstance(error, MemoryError) or any(message in text for message in _HOST_MEMORY):
        return RankFailure(failures.out_of_host_memory(rank, detail, log=log))
    if name == "OutOfMemoryError":  # torch's, without an import of torch
        return RankFailure(failures.out_of_gpu_memory(rank, detail, log=log))
    if _is_disk_full(error, text):
        return RankFailure(failures.full_disk(rank, detail, log=log))
    if _is_lost_connection(error, text):
        detail = detail.split(". ")[0]
        return RankFailure(failures.lost_connection(rank, detail, log=log), is_echo=True)
    return RankFailure(failures.exception(rank, name, detail, log=log))


def _is_disk_full(error: BaseException, text: str) -> bool:
    """By the number of the error, or by the message of a library that does not keep it."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    return any(message in text for message in _FULL_DISK)


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
