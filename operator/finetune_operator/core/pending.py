"""Why pods do not work yet, in one sentence."""

from finetune_api.names import Reason
from finetune_operator.core.observed import Job, Pod

IMAGE_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
CONFIG_REASONS = {"CreateContainerConfigError", "CreateContainerError"}


def explain(job: Job, wanted: int) -> tuple[str, str]:
    """(reason, message) for a Job whose pods are not all ready; `wanted` pods are expected."""
    if job.is_suspended:
        return Reason.SUSPENDED, "waiting in the queue: the Job is suspended until it is admitted"
    pods = [pod for pod in job.pods if not pod.is_going]
    for reason, chosen in _causes(pods):
        first = chosen[0]
        return reason, f"{len(chosen)} of {wanted} pods {_words(reason, first)}"
    # The same words while the pods come up one by one: each new one would be a status write.
    return Reason.STARTING, f"starting {wanted} {'pod' if wanted == 1 else 'pods'}"


def _causes(pods: list[Pod]) -> list[tuple[str, list[Pod]]]:
    causes = [
        (Reason.UNSCHEDULABLE, [pod for pod in pods if pod.unscheduled_message]),
        (Reason.IMAGE_PULL, [pod for pod in pods if pod.waiting_reason in IMAGE_REASONS]),
        (Reason.CONTAINER_CONFIG, [pod for pod in pods if pod.waiting_reason in CONFIG_REASONS]),
    ]
    return [(reason, chosen) for reason, chosen in causes if chosen]


def _words(reason: str, pod: Pod) -> str:
    if reason == Reason.UNSCHEDULABLE:
        return f"can't be scheduled: {pod.unscheduled_message}"
    if reason == Reason.IMAGE_PULL:
        return f"can't pull their image: {pod.waiting_message or pod.waiting_reason}"
    return f"can't start: {pod.waiting_message or pod.waiting_reason}"
