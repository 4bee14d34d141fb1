"""What ended a Job: from pods and their termination messages to one reason in plain words."""

from dataclasses import dataclass
from datetime import datetime

from finetune_api import names
from finetune_api.finetune import ErrorInfo
from finetune_api.names import Reason
from finetune_operator.core.observed import Job, Pod

LOG_LINES = 10
LAST_WORDS_SECONDS = 10.0  # for the pod that knows the cause, once an echo of it was heard
PLAIN = 3  # of `_certainty`: this pod's word is the cause, whatever the others say
ASKED_TO_END = 143  # SIGTERM
SIGNALS = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}


@dataclass(frozen=True)
class Verdict:
    """Why it ended. `is_counted`: against maxRestarts."""

    error: ErrorInfo
    is_users: bool
    is_counted: bool

    @classmethod
    def of(cls, error: ErrorInfo, *, is_counted: bool = True) -> "Verdict":
        return cls(error, error.code in names.USER_REASONS, is_counted)


def judge(job: Job) -> Verdict | None:
    """The verdict on a Job that failed; None while it has not.

    The pod that knows most speaks: a user's error before a crash, a crash before what is only
    its echo on the other ranks, and a lost pod where nothing else is known.
    """
    verdicts = [(_weight(pod), _judge_pod(pod)) for pod in job.pods if _has_ended_badly(pod)]
    if verdicts:
        return max(verdicts, key=lambda pair: pair[0])[1]
    if job.has_failed:
        message = job.failure or "the Job failed without a pod that says why"
        return Verdict.of(ErrorInfo(code=Reason.POD_LOST, message=message))
    return None


def may_say_more(job: Job, now: datetime) -> bool:
    """A pod ended with what may be an echo, and another that could know the cause still goes on.

    A node's clock that runs ahead of ours, or that is far behind it, ends the wait at once.
    """
    ended = [pod for pod in job.pods if _has_ended_badly(pod)]
    silent = [pod for pod in job.pods if pod.exit_code is None and not pod.is_disrupted]
    if not ended or not silent or max(map(_certainty, ended)) >= PLAIN:
        return False
    first = min((pod.ended_at for pod in ended if pod.ended_at), default=None)
    return first is not None and 0 <= (now - first).total_seconds() < LAST_WORDS_SECONDS


def _has_ended_badly(pod: Pod) -> bool:
    if pod.exit_code == 0 and pod.phase != "Failed":
        return False
    return pod.has_failed or pod.is_disrupted or pod.is_going


def _weight(pod: Pod) -> tuple[int, float]:
    """Of two failed pods, which one is the cause: the plainer word, then the earlier end."""
    return _certainty(pod), -(pod.ended_at.timestamp() if pod.ended_at else 0)


def _certainty(pod: Pod) -> int:
    failure = pod.outcome.failure if pod.outcome else None
    if failure is not None and failure.code in names.USER_REASONS:
        return 5
    if pod.is_disrupted:
        return 4
    if failure is not None and failure.exit_code not in {None, 1, names.EXIT_PREEMPTED}:
        return PLAIN  # killed, out of memory: not an exception that a lost neighbour raises
    if failure is not None:
        return 2
    code = pod.exit_code
    if code is not None and code > 128 and code != ASKED_TO_END and not pod.is_going:
        return PLAIN  # by a signal that nobody here sent
    return 1 if code is not None else 0


def _judge_pod(pod: Pod) -> Verdict:
    outcome = pod.outcome
    failure = outcome.failure if outcome else None
    if pod.is_disrupted:
        where = f" on node {pod.node}" if pod.node else ""
        message = f"pod {pod.name}{where} was taken away: {pod.pod_message or 'disrupted'}"
        return Verdict.of(
            ErrorInfo(code=Reason.POD_LOST, message=message, rank=pod.index), is_counted=False
        )
    if failure is not None:
        error = ErrorInfo.model_validate(failure.model_dump())
        return Verdict.of(error, is_counted=failure.exit_code != names.EXIT_PREEMPTED)
    if pod.exit_reason == "OOMKilled":
        return Verdict.of(
            ErrorInfo(
                code=Reason.OUT_OF_MEMORY,
                message=f"pod {pod.name} used more memory than its limit and was killed",
                rank=pod.index,
                exit_code=pod.exit_code,
                hint="raise resources.memory, or lower hyperparameters.batchSize",
            )
        )
    if pod.exit_code is None:
        message = f"pod {pod.name} was deleted while it worked"
        return Verdict.of(ErrorInfo(code=Reason.POD_LOST, message=message, rank=pod.index))
    return Verdict.of(
        ErrorInfo(
            code=Reason.RANK_CRASHED,
            message=f"rank {pod.index} {_exit_words(pod.exit_code)} (pod {pod.name})",
            rank=pod.index,
            exit_code=pod.exit_code,
            log=_tail(pod.message),
        )
    )


def _exit_words(code: int) -> str:
    if code > 128:  # a shell's way of saying: by a signal
        signal = code - 128
        return f"was killed by signal {signal} ({SIGNALS.get(signal, 'unknown')})"
    return f"ended with exit code {code}"


def _tail(text: str | None) -> list[str] | None:
    lines = [line[:512] for line in (text or "").splitlines() if line.strip()]
    return lines[-LOG_LINES:] or None
