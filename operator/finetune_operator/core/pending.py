"""Why the pods of a Job are not ready yet, in one sentence."""

import re
from collections.abc import Callable

from finetune_operator import messages
from finetune_operator.core.observed import Job, Pod
from finetune_operator.messages import StatusMessage

IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError"}

# The scheduler's message if every node lacks the same resource, and nothing else.
LACKING = re.compile(r"0/(\d+) nodes are available: (\d+) Insufficient ([^\s,]+?)[.,]?(?:\s|$)")
# The end of the scheduler's message, which says only that preemption does not help either.
PREEMPTION = re.compile(r"\s*(?:no new claims to deallocate,)?\s*(?:preemption: .*)?$", re.DOTALL)
# The kubelet alternates between the cause and the back-off. Only the cause is constant.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": (?:\w+: )?')
# The name of the pod differs at each try of the Job controller. The rest does not change.
REFUSED = re.compile(r'^Error creating: (?:pods "[^"]*" is forbidden: )?')


def explain(job: Job, wanted: int, queue: str | None = None) -> StatusMessage:
    """Explain why fewer than `wanted` pods of a Job are ready."""
    if job.is_suspended:
        return _explain_suspension(job, queue)
    pods = [pod for pod in job.pods if not pod.is_going]
    if job.refused and job.lacks_pods:
        cause = REFUSED.sub("", job.refused)
        is_quota = "exceeded quota" in cause
        return messages.pods_refused(wanted - len(pods), wanted, cause, is_quota=is_quota)
    for has_cause, describe, message in CAUSES:
        waiting = [pod for pod in pods if has_cause(pod)]
        if waiting:
            return message(len(waiting), wanted, describe(waiting[0]))
    # The number of pods that have started is left out: each would cost a status write.
    return messages.pods_starting(wanted)


def _explain_suspension(job: Job, queue: str | None) -> StatusMessage:
    if not queue:
        return messages.SUSPENDED_BY_OTHER
    workload = job.workload
    position = workload.position if workload else None
    return messages.queued(queue, position, workload.waiting if workload else None)


def _scheduler_cause(pod: Pod) -> str:
    cause = PREEMPTION.sub("", pod.unscheduled_message or "", count=1).strip()
    lacking = LACKING.fullmatch(cause)
    if lacking and lacking[1] == lacking[2]:
        return messages.nodes_lack(lacking[1], lacking[3])
    return cause


def _image_cause(pod: Pod) -> str:
    return BACK_OFF.sub("", pod.waiting_message or "") or pod.waiting_reason or ""


def _container_cause(pod: Pod) -> str:
    return pod.waiting_message or pod.waiting_reason or ""


# (whether a pod waits for this cause, the cause, the message), in the order of a pod's life
CAUSES: tuple[
    tuple[Callable[[Pod], bool], Callable[[Pod], str], Callable[[int, int, str], StatusMessage]],
    ...,
] = (
    (lambda pod: bool(pod.unscheduled_message), _scheduler_cause, messages.unschedulable),
    (lambda pod: pod.waiting_reason in IMAGE_REASONS, _image_cause, messages.image_not_pulled),
    (
        lambda pod: pod.waiting_reason in CONFIG_REASONS,
        _container_cause,
        messages.container_not_started,
    ),
)
