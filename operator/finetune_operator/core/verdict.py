"""The cause of a Job's failure, from its pods and their termination messages."""

from dataclasses import dataclass
from datetime import datetime

from finetune_api import names
from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import ExhaustedMemory
from finetune_operator import messages
from finetune_operator.core.containers import InjectedFailure
from finetune_operator.core.disruption import (
    describe_disruption,
    exceeded_memory_request,
    is_own_fault,
)
from finetune_operator.core.observed import Job, Pod
from finetune_operator.core.plan import left_of

LOG_LINES = 10
ROOT_CAUSE_SECONDS = 10.0  # the wait for the root cause after a pod that may only echo it
CERTAIN = 3  # of `_certainty`: this pod has the root cause, whatever the others report
CERTAIN_REASONS = frozenset({Reason.OUT_OF_MEMORY, Reason.DRIVER_TOO_OLD, Reason.GPU_UNUSABLE})
MEMORY_SETTINGS = {  # of the containers of the prepare pod
    names.CONTAINER: "the chart value prepareResources.memory",
    names.CONTAINER_BASE_CHECK: "the chart value baseCheck.resources.memory",
}
TERMINATED, KILLED = 143, 137  # exit codes after SIGTERM and SIGKILL


@dataclass(frozen=True)
class Verdict:
    """The cause of a failure. `is_counted`: against maxRestarts."""

    error: ErrorInfo
    is_users: bool
    is_counted: bool
    exhausted_memory: ExhaustedMemory | None = None

    @classmethod
    def of(
        cls,
        error: ErrorInfo,
        *,
        is_counted: bool = True,
        exhausted_memory: ExhaustedMemory | None = None,
    ) -> "Verdict":
        is_users = error.code in names.USER_REASONS
        return cls(error, is_users, is_counted, exhausted_memory)


def judge(job: Job) -> Verdict | None:
    """The verdict on a Job that failed; None if it has not failed.

    The most certain pod decides: an error of the user before a crash, a crash before its echo on
    the other ranks, and a lost pod only if nothing else is known.
    """
    verdicts = [(_weight(pod), _judge_pod(pod)) for pod in job.pods if _has_ended_badly(pod)]
    if job.passed_deadline and job.attempt is None and not any(it.is_users for _, it in verdicts):
        return Verdict.of(messages.job_took_too_long(job.component, job.deadline))
    if verdicts:
        return max(verdicts, key=lambda pair: pair[0])[1]
    if job.has_failed:
        was_disrupted = job.attempt is not None and job.failure_reason == "PodFailurePolicy"
        error = messages.job_failed(job.failure, disrupted=was_disrupted)
        return Verdict.of(error, is_counted=not was_disrupted)
    return None


def awaits_root_cause(job: Job, now: datetime) -> bool:
    """Whether a pod ended with what may be an echo while another that may know more still runs."""
    ended = [pod for pod in job.pods if _has_ended_badly(pod)]
    running = [pod for pod in job.pods if pod.exit_code is None and not pod.is_disrupted]
    if not ended or not running or max(map(_certainty, ended)) >= CERTAIN:
        return False
    first = min((pod.ended_at for pod in ended if pod.ended_at), default=None)
    return left_of(ROOT_CAUSE_SECONDS, first, now) > 0


def _has_ended_badly(pod: Pod) -> bool:
    if pod.exit_code == 0 and pod.phase != "Failed":
        return False
    return pod.has_failed or pod.is_disrupted or pod.is_going


def _weight(pod: Pod) -> tuple[int, float]:
    """Orders failed pods: the more certain one is the cause, then the one that ended earlier."""
    return _certainty(pod), -(pod.ended_at.timestamp() if pod.ended_at else 0)


def _certainty(pod: Pod) -> int:
    failure = pod.outcome.failure if pod.outcome else None
    if failure is not None and failure.code in names.USER_REASONS:
        return 5
    if pod.is_disrupted:
        return 4
    if failure is not None and failure.code in CERTAIN_REASONS:
        return CERTAIN
    if failure is not None and failure.exit_code not in {None, 1, names.EXIT_PREEMPTED}:
        return CERTAIN  # killed, so it is not an exception after the loss of another rank
    if failure is not None:
        return 2
    if pod.injected_failure is not None:
        return 1
    code = pod.exit_code
    if code is not None and code > 128 and code != TERMINATED and not pod.is_going:
        return CERTAIN  # by a signal that the operator did not cause
    return 1 if code is not None else 0


def _judge_pod(pod: Pod) -> Verdict:
    failure = pod.outcome.failure if pod.outcome else None
    if pod.injected_failure is not None and not pod.is_disrupted and pod.pod_reason is None:
        return Verdict.of(_injected_error(pod, pod.injected_failure))
    disruption = describe_disruption(pod)
    if disruption is not None and not (failure and failure.code in names.USER_REASONS):
        exhausted: ExhaustedMemory | None = "host" if exceeded_memory_request(pod) else None
        return Verdict.of(disruption, is_counted=is_own_fault(pod), exhausted_memory=exhausted)
    if failure is not None and not _was_killed_for_memory(failure, pod):
        is_crash = failure.code != Reason.OUT_OF_MEMORY
        is_preempted = failure.exit_code == names.EXIT_PREEMPTED
        return Verdict.of(
            _reported_error(failure, pod),
            is_counted=is_crash and not is_preempted,
            exhausted_memory=None if is_crash else _exhausted(failure),
        )
    if pod.exit_reason == "OOMKilled":
        return Verdict.of(_out_of_memory(pod), is_counted=False, exhausted_memory="host")
    if pod.exit_code is None:
        error = messages.pod_deleted(pod.name)
        return Verdict.of(error.replace(rank=pod.index, node=pod.node))
    error = messages.rank_ended(pod.index, pod.exit_code, pod.name)
    return Verdict.of(
        error.replace(
            rank=pod.index, node=pod.node, exit_code=pod.exit_code, log=_tail(pod.message)
        )
    )


def _injected_error(pod: Pod, failed: InjectedFailure) -> ErrorInfo:
    words = [item.strip() for item in (failed.reason, failed.message) if item and item.strip()]
    cause = _clean(": ".join(words), 500) or messages.UNKNOWN_CAUSE
    error = messages.injected_failed(failed.container, pod.name, failed.exit_code, cause)
    return error.replace(rank=pod.index, node=pod.node, exit_code=failed.exit_code)


def _exhausted(failure: Failure) -> ExhaustedMemory | None:
    """The memory that a rank ran out of. Images of older versions report only a kernel's kill."""
    was_killed = failure.exit_code == KILLED
    return failure.exhausted_memory or ("host" if was_killed else None)


def _was_killed_for_memory(failure: Failure, pod: Pod) -> bool:
    """The kubelet knows why a process was killed; the pod itself knows only of a SIGKILL."""
    is_unclear = failure.code == Reason.RANK_CRASHED and failure.exit_code == KILLED
    return is_unclear and pod.exit_reason == "OOMKilled"


def _reported_error(failure: Failure, pod: Pod) -> ErrorInfo:
    """The pod's own report within the limits of the status: any program may have written it."""
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
    """Replace lone surrogates, which JSON allows and UTF-8 does not, by question marks."""
    return text.encode("utf-8", "replace").decode()[:limit]


def _out_of_memory(pod: Pod) -> ErrorInfo:
    failure = pod.outcome.failure if pod.outcome else None
    is_training = pod.attempt is not None
    setting = "resources.memory" if is_training else MEMORY_SETTINGS[pod.container]
    log = _cut(failure.log or [])[-LOG_LINES:] or None if failure else _tail(pod.message)
    error = messages.pod_out_of_memory(pod.name, pod.memory_limit, setting)
    return error.replace(rank=pod.index, node=pod.node, exit_code=pod.exit_code, log=log)


def _tail(text: str | None) -> list[str] | None:
    return _cut((text or "").splitlines())[-LOG_LINES:] or None


def _cut(lines: list[str]) -> list[str]:
    return [_clean(line, 512) for line in lines if line.strip()]
