"""What ended a Job: from pods and their termination messages to one reason in plain words."""

from dataclasses import dataclass
from datetime import datetime

from finetune_api import names
from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_operator.core.disruption import describe_disruption, is_own_fault
from finetune_operator.core.observed import Job, Pod

LOG_LINES = 10
LAST_WORDS_SECONDS = 10.0  # for the pod that knows the cause, once an echo of it was heard
PLAIN = 3  # of `_certainty`: this pod's word is the cause, whatever the others say
ASKED_TO_END, KILLED = 143, 137  # by SIGTERM, by SIGKILL
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
        was_disrupted = job.attempt is not None and job.failure_reason == "PodFailurePolicy"
        if was_disrupted:
            message = f"its pods were drained, preempted or lost with their node: {message}"
        error = ErrorInfo(code=Reason.POD_LOST, message=message)
        return Verdict.of(error, is_counted=not was_disrupted)
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
    if failure is not None and failure.code == Reason.OUT_OF_MEMORY:
        return PLAIN
    if failure is not None and failure.exit_code not in {None, 1, names.EXIT_PREEMPTED}:
        return PLAIN  # killed: not an exception that a lost neighbor raises
    if failure is not None:
        return 2
    code = pod.exit_code
    if code is not None and code > 128 and code != ASKED_TO_END and not pod.is_going:
        return PLAIN  # by a signal that nobody here sent
    return 1 if code is not None else 0


def _judge_pod(pod: Pod) -> Verdict:
    failure = pod.outcome.failure if pod.outcome else None
    disruption = describe_disruption(pod)
    if disruption is not None and not (failure and failure.code in names.USER_REASONS):
        return Verdict.of(disruption, is_counted=is_own_fault(pod))
    if failure is not None and not _was_killed_for_memory(failure, pod):
        is_crash = failure.code != Reason.OUT_OF_MEMORY
        is_preempted = failure.exit_code == names.EXIT_PREEMPTED
        return Verdict.of(_told(failure, pod), is_counted=is_crash and not is_preempted)
    if pod.exit_reason == "OOMKilled":
        return Verdict.of(_out_of_memory(pod), is_counted=False)
    if pod.exit_code is None:
        message = f"pod {pod.name} was deleted while it worked"
        return Verdict.of(
            ErrorInfo(code=Reason.POD_LOST, message=message, rank=pod.index, node=pod.node)
        )
    return Verdict.of(
        ErrorInfo(
            code=Reason.RANK_CRASHED,
            message=f"rank {pod.index} {_exit_words(pod.exit_code)} (pod {pod.name})",
            rank=pod.index,
            node=pod.node,
            exit_code=pod.exit_code,
            log=_tail(pod.message),
            hint="the last lines of its log say more; a crash goes on from the last checkpoint",
        )
    )


def _was_killed_for_memory(failure: Failure, pod: Pod) -> bool:
    """The kubelet saw it, where the pod's own word knows a SIGKILL and not from whom."""
    is_unclear = failure.code == Reason.RANK_CRASHED and failure.exit_code == KILLED
    return is_unclear and pod.exit_reason == "OOMKilled"


def _told(failure: Failure, pod: Pod) -> ErrorInfo:
    """A pod's own word, held to the bounds of the status: it may come from any program."""
    is_known = failure.code in names.END_REASONS
    message = failure.message if is_known else f"{failure.code}: {failure.message}"
    return ErrorInfo(
        code=failure.code if is_known else Reason.INTERNAL,
        message=_clean(message, 2048),
        param=_clean(failure.param, 256) if failure.param else None,
        hint=_clean(failure.hint, 1024) if failure.hint else None,
        rank=pod.index if failure.rank is None else failure.rank,
        node=pod.node,
        exit_code=pod.exit_code if failure.exit_code is None else failure.exit_code,
        lines=_cut(failure.lines or [])[:20] or None,
        log=_cut(failure.log or [])[-20:] or None,
    )


def _clean(text: str, limit: int) -> str:
    """Half a surrogate pair, which JSON can carry and UTF-8 can't, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()[:limit]


def _out_of_memory(pod: Pod) -> ErrorInfo:
    told = pod.outcome.failure if pod.outcome else None
    of_limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
    what = "resources.memory" if pod.attempt is not None else "the chart's prepareResources.memory"
    return ErrorInfo(
        code=Reason.OUT_OF_MEMORY,
        message=f"pod {pod.name} used more memory than its limit{of_limit} and was killed",
        rank=pod.index,
        node=pod.node,
        exit_code=pod.exit_code,
        log=_cut(told.log or [])[-LOG_LINES:] or None if told else _tail(pod.message),
        hint=f"raise {what}",
    )


def _exit_words(code: int) -> str:
    if code > 128:  # a shell's way of saying: by a signal
        signal = code - 128
        return f"was killed by signal {signal} ({SIGNALS.get(signal, 'unknown')})"
    return f"ended with exit code {code}"


def _tail(text: str | None) -> list[str] | None:
    return _cut((text or "").splitlines())[-LOG_LINES:] or None


def _cut(lines: list[str]) -> list[str]:
    return [_clean(line, 512) for line in lines if line.strip()]
