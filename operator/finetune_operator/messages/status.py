"""Messages of the status: `status.reason` and `status.message`."""

from dataclasses import dataclass

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_operator.messages.text import MESSAGE_CHARACTERS
from finetune_operator.messages.text import count as _count


@dataclass(frozen=True)
class StatusMessage:
    """`status.reason` and `status.message`."""

    reason: str
    message: str


CHECKING_DATA = StatusMessage(Reason.VALIDATING, "the prepare Job is checking the data")
SUSPENDED_BY_USER = StatusMessage(
    Reason.SUSPENDED,
    "spec.suspend has suspended the training; set it to false to continue from the last checkpoint",
)
SUSPENDED_BY_OTHER = StatusMessage(
    Reason.QUEUED, "the Job is suspended: a client other than this operator set its spec.suspend"
)
QUEUE_OF_TRAINING = "create the FineTune again with spec.queueName"
QUEUE_OF_CHECKS = (
    "set the chart value kueue.queuePrepare to true, and create the FineTune again with "
    "spec.queueName"
)
QUEUE_OF_DELETION = (
    "set the chart value kueue.queuePrepare to true, and set the annotation finetune.dev/queue of "
    "the Model to a LocalQueue"
)
CANCELLED_BY_USER = StatusMessage(Reason.CANCELLED, "spec.cancel has cancelled the fine-tune")


def checking_data_again(error: ErrorInfo) -> StatusMessage:
    message = f"the data check failed and is being retried: {error.message}"
    return StatusMessage(error.code, message[:MESSAGE_CHARACTERS])


def looking_up(deletion: str) -> StatusMessage:
    """deletion: of the Job, in a sentence."""
    message = f"a lookup Job is searching for a published model: {deletion}"
    return StatusMessage(Reason.JOB_DELETED, message[:MESSAGE_CHARACTERS])


def looking_up_again(deletion: str, error: ErrorInfo) -> StatusMessage:
    message = f"the search for a published model is being retried: {error.message}; {deletion}"
    return StatusMessage(Reason.JOB_DELETED, message[:MESSAGE_CHARACTERS])


def pods_starting(pods: int) -> StatusMessage:
    verb = "is" if pods == 1 else "are"
    return StatusMessage(Reason.STARTING, f"{_count(pods, 'pod')} {verb} starting")


def pods_training(pods: int) -> StatusMessage:
    verb = "is" if pods == 1 else "are"
    return StatusMessage(Reason.TRAINING, f"{pods} of {_count(pods, 'pod')} {verb} training")


HALF_MICRO_BATCH = "half the micro-batch"


def other_plan(zero_stage: int, offload: str) -> str:
    """A change of an attempt."""
    return f"ZeRO {zero_stage} and offload {offload}"


def larger_request(amount: str) -> str:
    """A change of an attempt. amount: the memory request of a pod."""
    return f"a memory request of {amount}"


def attempt_starts(attempt: int, at: str | None, cause: str, change: str | None) -> StatusMessage:
    """at: the end of the wait before the attempt, if any. change: from the attempt before it."""
    when = (f" at {at}" if at else "") + (f" with {change}" if change else "")
    message = f"attempt {attempt} starts{when}: {cause}"
    return StatusMessage(Reason.RESTARTING, message[:MESSAGE_CHARACTERS])


def queued(queue: str, position: int | None, cause: str | None) -> StatusMessage:
    """position: in the queue, from 1; cause: the message of Kueue."""
    place = f" at position {position}" if position else ""
    why = f": {cause}" if cause else ""
    message = f"the Job is waiting in queue {queue}{place}{why}"
    return StatusMessage(Reason.QUEUED, message[:MESSAGE_CHARACTERS])


def suspended_by_kueue(remedy: str, cause: str | None) -> StatusMessage:
    """The Job names no queue. cause: the message of Kueue."""
    what = "Kueue manages all Jobs and has suspended this one, which names no queue"
    message = f"{what}: {remedy}" + (f" (Kueue: {cause})" if cause else "")
    return StatusMessage(Reason.QUEUED, message[:MESSAGE_CHARACTERS])


def perhaps_suspended_by_kueue(remedy: str) -> StatusMessage:
    """The cluster has Kueue, and the operator cannot read its Workloads."""
    what = "the Job is suspended, probably by Kueue, because it names no queue"
    how = "set the chart value kueue.enabled to true to read Kueue's reason"
    return StatusMessage(Reason.QUEUED, f"{what}: {remedy}; {how}")


def pods_refused(missing: int, pods: int, cause: str, *, is_quota: bool) -> StatusMessage:
    """cause: the message of the API server."""
    reason = Reason.QUOTA_EXCEEDED if is_quota else Reason.PODS_REFUSED
    return StatusMessage(reason, f"{missing} of {_count(pods, 'pod')} cannot be created: {cause}")


def unschedulable(waiting: int, pods: int, cause: str) -> StatusMessage:
    """cause: `nodes_lack`, or the message of the scheduler."""
    message = f"{waiting} of {_count(pods, 'pod')} cannot be scheduled: {cause}"
    return StatusMessage(Reason.UNSCHEDULABLE, message)


def nodes_lack(nodes: str, resource: str) -> str:
    return f"0/{nodes} nodes have {resource} free"


def image_not_pulled(waiting: int, pods: int, container: str, cause: str) -> StatusMessage:
    """container: empty for the main one. cause: the message of the kubelet."""
    which = f" of container {container}" if container else ""
    message = f"{waiting} of {_count(pods, 'pod')} cannot pull the image{which}: {cause}"
    return StatusMessage(Reason.IMAGE_PULL, message)


def container_not_started(waiting: int, pods: int, container: str, cause: str) -> StatusMessage:
    which = f"container {container}" if container else "the container"
    message = f"{waiting} of {_count(pods, 'pod')} cannot start {which}: {cause}"
    return StatusMessage(Reason.CONTAINER_CONFIG, message)


def container_crashes(waiting: int, pods: int, container: str, cause: str) -> StatusMessage:
    """container: an injected one that restarts; cause: its exit code and message."""
    whole = f"container {container or 'main'} crashes repeatedly"
    message = f"{waiting} of {_count(pods, 'pod')} cannot start, because {whole}: {cause}"
    return StatusMessage(Reason.INJECTED_CONTAINER, message[:MESSAGE_CHARACTERS])


def pods_initializing(waiting: int, pods: int, container: str) -> StatusMessage:
    """container: an injected init container that has been running for long."""
    verb = "waits" if waiting == 1 else "wait"
    message = f"{waiting} of {_count(pods, 'pod')} {verb} for the init container {container} to end"
    return StatusMessage(Reason.INJECTED_CONTAINER, message)


def volume_not_mounted(waiting: int, pods: int, cause: str) -> StatusMessage:
    """cause: the message of the kubelet or the attach controller, which names the volume."""
    message = f"{waiting} of {_count(pods, 'pod')} cannot mount a volume: {cause}"
    return StatusMessage(Reason.VOLUME_MOUNT, message[:MESSAGE_CHARACTERS])


def certificates_not_mounted(waiting: int, pods: int, cause: str) -> StatusMessage:
    """cause: the message of the kubelet, which names the ConfigMap or Secret, or its key."""
    message = (
        f"{waiting} of {_count(pods, 'pod')} cannot mount the certificates that the chart value "
        f"pods.certificates names and that each namespace with FineTunes needs: {cause}"
    )
    return StatusMessage(Reason.VOLUME_MOUNT, message[:MESSAGE_CHARACTERS])


def sandbox_not_created(waiting: int, pods: int, cause: str) -> StatusMessage:
    """cause: the message of the kubelet, for example about the network or the runtime class."""
    message = f"{waiting} of {_count(pods, 'pod')} cannot create the pod sandbox: {cause}"
    return StatusMessage(Reason.POD_SANDBOX, message[:MESSAGE_CHARACTERS])


def model_ready(model: str) -> StatusMessage:
    return StatusMessage(Reason.SUCCEEDED, f"the fine-tuned model is {model}")


def model_adopted(model: str, uid: str, uri: str) -> StatusMessage:
    """uid: of the FineTune that trained the model. uri: of its files."""
    message = (
        f"the fine-tuned model is {model}, which a former FineTune of this name has already "
        f"trained in the same way (UID {uid}): {uri}"
    )
    return StatusMessage(Reason.ADOPTED, message[:MESSAGE_CHARACTERS])


def dry_run_passed(
    examples: int, tokens: int, steps: int, batch: int, memory: str
) -> StatusMessage:
    """tokens: of an epoch; batch: its examples; memory: `memory_estimate`, or nothing."""
    plan = f"{examples} examples, {tokens} tokens per epoch, {steps} steps of {batch} examples"
    return StatusMessage(Reason.DRY_RUN, f"the dry run found no problem: {plan}{memory}")


def memory_estimate(
    gib: float, zero_stage: int | None, offload: str | None, pod_gib: float | None
) -> str:
    """gib: of one rank. pod_gib: host memory of a pod, if it was estimated."""
    of_rank = f", about {gib:g} GiB per rank (ZeRO {zero_stage}, offload {offload or 'none'})"
    return of_rank + (f" and {pod_gib:g} GiB of host memory per pod" if pod_gib else "")
