"""Why pods do not work yet, in one sentence."""

import re

from finetune_api.names import Reason
from finetune_operator.core.observed import Job, Pod

IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError"}

# The scheduler's words where every node lacks the same thing, and nothing else.
LACKING = re.compile(r"0/(\d+) nodes are available: (\d+) Insufficient ([^\s,]+?)[.,]?(?:\s|$)")
# What neither taking claims back nor preempting would change.
PREEMPTION = re.compile(r"\s*(?:no new claims to deallocate,)?\s*(?:preemption: .*)?$", re.DOTALL)
# The kubelet says the cause and the back-off in turn: the cause alone does not change.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": (?:\w+: )?')
# A new pod's name each time the Job's controller tries: without it the words stay the same.
REFUSED = re.compile(r'^Error creating: (?:pods "[^"]*" is forbidden: )?')


def explain(job: Job, wanted: int, queue: str | None = None) -> tuple[str, str]:
    """(reason, message) for a Job whose pods are not all ready; `wanted` pods are expected."""
    if job.is_suspended:
        return Reason.QUEUED, _queue_words(job, queue)
    pods = [pod for pod in job.pods if not pod.is_going]
    if job.refused and job.lacks_pods:
        message = REFUSED.sub("", job.refused)
        is_quota = "exceeded quota" in message
        reason = Reason.QUOTA_EXCEEDED if is_quota else Reason.PODS_REFUSED
        return reason, f"{wanted - len(pods)} of {wanted} pods can't be created: {message}"
    for reason, chosen in _causes(pods):
        first = chosen[0]
        return reason, f"{len(chosen)} of {wanted} pods {_words(reason, first)}"
    # The same words while the pods come up one by one: each new one would be a status write.
    return Reason.STARTING, f"starting {wanted} {'pod' if wanted == 1 else 'pods'}"


def _queue_words(job: Job, queue: str | None) -> str:
    seen = job.workload
    if not queue:
        return "the Job is suspended: somebody else set its spec.suspend"
    if seen is None:
        return f"waiting in queue {queue}: the Job is suspended until it is admitted"
    place = f"number {seen.position} in queue {queue}" if seen.position else f"in queue {queue}"
    return f"waiting as {place}: {seen.waiting}" if seen.waiting else f"waiting as {place}"


def _causes(pods: list[Pod]) -> list[tuple[str, list[Pod]]]:
    causes = [
        (Reason.UNSCHEDULABLE, [pod for pod in pods if pod.unscheduled_message]),
        (Reason.IMAGE_PULL, [pod for pod in pods if pod.waiting_reason in IMAGE_REASONS]),
        (Reason.CONTAINER_CONFIG, [pod for pod in pods if pod.waiting_reason in CONFIG_REASONS]),
    ]
    return [(reason, chosen) for reason, chosen in causes if chosen]


def _words(reason: str, pod: Pod) -> str:
    if reason == Reason.UNSCHEDULABLE:
        return f"can't be scheduled: {_scheduler_words(pod.unscheduled_message or '')}"
    if reason == Reason.IMAGE_PULL:
        told = BACK_OFF.sub("", pod.waiting_message or "")
        return f"can't pull their image: {told or pod.waiting_reason}"
    return f"can't start: {pod.waiting_message or pod.waiting_reason}"


def _scheduler_words(message: str) -> str:
    message = PREEMPTION.sub("", message, count=1).strip()
    lacking = LACKING.fullmatch(message)
    if lacking and lacking[1] == lacking[2]:
        return f"0/{lacking[1]} nodes have {lacking[3]} free"
    return message
