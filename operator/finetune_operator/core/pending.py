"""Why the pods of a Job are not ready yet, in one sentence."""

import re
from collections.abc import Callable, Iterable

from finetune_api import names
from finetune_operator import messages
from finetune_operator.core.containers import CRASH_LOOP
from finetune_operator.core.observed import Job, KubeletEvent, Pod
from finetune_operator.messages import StatusMessage
from finetune_operator.pod_fields import CERTIFICATES

# ErrImagePull, ImagePullBackOff, InvalidImageName, RegistryUnavailable, ... of the kubelet
IMAGE_REASON = re.compile(r"Image|Registry|Signature")
VOLUME_EVENT = re.compile(r"Mount|Volume|Attach")
SANDBOX_EVENT = re.compile(r"SandBox|Network")
# IDs of a sandbox or container, which differ at each try.
RUNTIME_ID = re.compile(r"\b[0-9a-f]{12,}\b")

# The scheduler's message if every node lacks the same resource, and nothing else.
LACKING = re.compile(r"0/(\d+) nodes are available: (\d+) Insufficient ([^\s,]+?)[.,]?(?:\s|$)")
# The end of the scheduler's message, which says only that preemption does not help either.
PREEMPTION = re.compile(r"\s*(?:no new claims to deallocate,)?\s*(?:preemption: .*)?$", re.DOTALL)
# The kubelet alternates between the cause and the back-off. Only the cause is constant.
BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": (?:\w+: )?')
# The name of the pod differs at each try of the Job controller. The rest does not change.
REFUSED = re.compile(r'^Error creating: (?:pods "[^"]*" is forbidden: )?')


QUEUE_REMEDIES = {
    names.COMPONENT_PREPARE: messages.QUEUE_OF_CHECKS,
    names.COMPONENT_LOOKUP: messages.QUEUE_OF_CHECKS,
    names.COMPONENT_DELETION: messages.QUEUE_OF_DELETION,
}


def explain(job: Job, wanted: int) -> StatusMessage:
    """Explain why fewer than `wanted` pods of a Job are ready."""
    if job.is_suspended:
        return _explain_suspension(job)
    return explain_pods(job.pods, wanted, job.refused if job.lacks_pods else None)


def explain_pods(found: Iterable[Pod], wanted: int, refused: str | None) -> StatusMessage:
    """Explain why fewer than `wanted` of these pods are ready.

    refused: why their controller cannot create the others, if it cannot.
    """
    pods = [pod for pod in found if not pod.is_going]
    if refused:
        cause = REFUSED.sub("", refused)
        is_quota = "exceeded quota" in cause
        return messages.pods_refused(wanted - len(pods), wanted, cause, is_quota=is_quota)
    unscheduled = [pod for pod in pods if pod.unscheduled_message]
    if unscheduled:
        return messages.unschedulable(len(unscheduled), wanted, _scheduler_cause(unscheduled[0]))
    for has_cause, describe, message in CAUSES:
        waiting = [pod for pod in pods if pod.waiting_reason and has_cause(pod)]
        if waiting:
            return message(len(waiting), wanted, _other(waiting[0]), describe(waiting[0]))
    late = [pod for pod in pods if pod.kubelet_event]
    if late and late[0].kubelet_event:
        return _explain_event(len(late), wanted, late[0].kubelet_event)
    # The number of pods that have started is left out: each would cost a status write.
    return messages.pods_starting(wanted)


def _explain_suspension(job: Job) -> StatusMessage:
    workload = job.workload
    queue = (workload.queue if workload else None) or job.queue
    if queue:
        position = workload.position if workload else None
        return messages.queued(queue, position, workload.waiting if workload else None)
    remedy = QUEUE_REMEDIES.get(job.component, messages.QUEUE_OF_TRAINING)
    if workload:
        return messages.suspended_by_kueue(remedy, workload.waiting)
    if job.may_have_workload:
        return messages.perhaps_suspended_by_kueue(remedy)
    return messages.SUSPENDED_BY_OTHER


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


def _explain_event(waiting: int, wanted: int, event: KubeletEvent) -> StatusMessage:
    """Explain it with the words of the kubelet, which name the volume."""
    if not event.reason:
        return messages.pods_initializing(waiting, wanted, event.message)
    cause = RUNTIME_ID.sub("...", event.message)
    if VOLUME_EVENT.search(event.reason) and f'"{CERTIFICATES}"' in cause:
        return messages.certificates_not_mounted(waiting, wanted, cause)
    if VOLUME_EVENT.search(event.reason):
        return messages.volume_not_mounted(waiting, wanted, cause)
    if SANDBOX_EVENT.search(event.reason):
        return messages.sandbox_not_created(waiting, wanted, cause)
    return messages.container_not_started(waiting, wanted, "", f"{event.reason}: {cause}")


def _is_image(pod: Pod) -> bool:
    return bool(pod.waiting_reason and IMAGE_REASON.search(pod.waiting_reason))


def _crashes(pod: Pod) -> bool:
    return pod.waiting_reason == CRASH_LOOP


def _other(pod: Pod) -> str:
    """The name of the container that waits, if it is not the main one."""
    name = pod.waiting_container or names.CONTAINER
    return "" if name == names.CONTAINER else name


# (whether a pod that waits has this cause, the cause, the message), in the order of a pod's life
CAUSES: tuple[
    tuple[
        Callable[[Pod], bool], Callable[[Pod], str], Callable[[int, int, str, str], StatusMessage]
    ],
    ...,
] = (
    (_is_image, _image_cause, messages.image_not_pulled),
    (_crashes, _container_cause, messages.container_crashes),
    (lambda _: True, _container_cause, messages.container_not_started),
)
