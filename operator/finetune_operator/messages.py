"""Every Event, status message, error, and hint of the operator, one function or constant each.

Decisions and tests refer to them by name, and pages of `docs/reference` are generated from them.
A message consists of complete sentences that say what happened and where; a hint says what to do.
Neither ends with a period, because both are put after a colon or into a table.
"""

from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import Literal

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics

MESSAGE_CHARACTERS = 2048  # of status.message and status.error.message
SIGNALS = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}

HINT_CRASH = "read the last lines of its log; a crash continues from the last checkpoint"
HINT_NODE = "inspect the node: kubectl describe node {node}"
HINT_EVICTED = "check the node for drains and pressure, and the limits in resources"
HINT_PREEMPTED = "set priorityClassName, or wait until the other pods have finished"
HINT_POD = "list the recent Events of the namespace: kubectl get events"
HINT_OUT_OF_MEMORY = (
    "use more GPUs, a higher deepspeed.zeroStage, offload, a shorter maxSequenceLength, "
    "or more resources.memory"
)


@dataclass(frozen=True)
class Event:
    """An Event of a FineTune. It is recorded once for each (reason, attempt, key)."""

    reason: str
    message: str
    level: Literal["info", "warning", "error"] = "info"
    attempt: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class StatusMessage:
    """`status.reason` and `status.message`."""

    reason: str
    message: str


# --- Events: they begin like those of OpenAI's fine-tunes API where it has them --------------

STARTED = Event("Started", "Fine-tune started")
SUCCEEDED = Event("Succeeded", "Fine-tune succeeded")
CANCELLED = Event(Reason.CANCELLED, "Fine-tune cancelled")
EPOCH_COMPLETED = "EpochCompleted"


def created(name: str) -> Event:
    return Event("Created", f"Created fine-tune: {name}")


def advice(sentence: str) -> Event:
    """sentence: on the data or the plan, written by the prepare Job."""
    key = sha256(sentence[:1024].encode("utf-8", "replace")).hexdigest()[:16]
    return Event("Advice", sentence, "warning", key=key)


def enqueued(queue: str) -> Event:
    return Event("Enqueued", f"Fine-tune enqueued in queue {queue}", key=queue)


def queue_position(attempt: int, position: int) -> Event:
    return Event("Enqueued", f"Fine-tune enqueued. Queue number: {position}", attempt=attempt)


def suspended(attempt: int | None) -> Event:
    """attempt: the one that the suspension ended, if any."""
    return Event("Suspended", "Fine-tune suspended", attempt=attempt)


def resumed(attempt: int) -> Event:
    """attempt: the one that starts."""
    return Event("Resumed", "Fine-tune resumed", attempt=attempt)


def base_model_loaded(base: str) -> Event:
    return Event("BaseModelLoaded", f"Base model loaded: {base}")


def restarted(attempt: int, step: int | None, cause: str) -> Event:
    """step: of the checkpoint; None for an attempt that ended before it trained."""
    where = f", attempt {attempt}" if step is None else f" from step {step}"
    return Event("Restarted", f"Fine-tune restarted{where}: {cause}", attempt=attempt)


def base_model_measured(before: EpochMetrics) -> Event:
    """before: metrics of the fine-tuned model that the training continues from."""
    return Event("BaseModelMeasured", f"Measured before training: {format_metrics(before)}")


def epoch_completed(epoch: EpochMetrics, epochs: int) -> Event:
    metrics = f" ({found})" if (found := format_metrics(epoch)) else ""
    message = f"Completed epoch {epoch.epoch}/{epochs}{metrics}"
    return Event(EPOCH_COMPLETED, message, key=str(epoch.epoch))


def model_uploaded(model: str) -> Event:
    return Event("ModelUploaded", f"Uploaded model: {model}")


def results_uploaded(uri: str) -> Event:
    return Event("ResultsUploaded", f"Uploaded result file: {uri}")


def diverged(first_loss: float, last_loss: float) -> Event:
    message = (
        f"Training diverged: the loss ended at {last_loss:.4f} after starting at {first_loss:.4f}. "
        "Train again with a lower learning rate, for example one tenth"
    )
    return Event("Diverged", message, "warning")


def failed(error: ErrorInfo) -> Event:
    return Event(error.code, f"Fine-tune failed: {error.message}", "error", key="failed")


def format_metrics(epoch: EpochMetrics) -> str:
    """The metrics that were measured; an empty string if none was."""
    values = {
        "training loss": epoch.training_loss,
        "validation loss": epoch.validation_loss,
        "validation sequence accuracy": epoch.validation_sequence_accuracy,
    }
    found = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
    if epoch.learning_rate is not None:
        found.append(f"learning rate {epoch.learning_rate:.3g}")
    return ", ".join(found)


# --- status.reason and status.message -------------------------------------------------------------

CHECKING_DATA = StatusMessage(Reason.VALIDATING, "the prepare Job is checking the data")
SUSPENDED_BY_USER = StatusMessage(
    Reason.SUSPENDED,
    "spec.suspend has suspended the training; set it to false to continue from the last checkpoint",
)
SUSPENDED_BY_OTHER = StatusMessage(
    Reason.QUEUED, "the Job is suspended: a client other than this operator set its spec.suspend"
)
CANCELLED_BY_USER = StatusMessage(Reason.CANCELLED, "spec.cancel has cancelled the fine-tune")


def checking_data_again(error: ErrorInfo) -> StatusMessage:
    message = f"the data check failed and is being retried: {error.message}"
    return StatusMessage(error.code, message[:MESSAGE_CHARACTERS])


def pods_starting(pods: int) -> StatusMessage:
    verb = "is" if pods == 1 else "are"
    return StatusMessage(Reason.STARTING, f"{_count(pods, 'pod')} {verb} starting")


def pods_training(pods: int) -> StatusMessage:
    verb = "is" if pods == 1 else "are"
    return StatusMessage(Reason.TRAINING, f"{pods} of {_count(pods, 'pod')} {verb} training")


def attempt_starts(attempt: int, at: str | None, cause: str, *, halved: bool) -> StatusMessage:
    """at: the end of the wait before the attempt, if any; halved: its micro-batch."""
    when = (f" at {at}" if at else "") + (" with half the micro-batch" if halved else "")
    message = f"attempt {attempt} starts{when}: {cause}"
    return StatusMessage(Reason.RESTARTING, message[:MESSAGE_CHARACTERS])


def queued(queue: str, position: int | None, cause: str | None) -> StatusMessage:
    """position: in the queue, from 1; cause: the message of Kueue."""
    place = f" at position {position}" if position else ""
    why = f": {cause}" if cause else ""
    return StatusMessage(Reason.QUEUED, f"the Job is waiting in queue {queue}{place}{why}")


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


def image_not_pulled(waiting: int, pods: int, cause: str) -> StatusMessage:
    """cause: the message of the kubelet."""
    message = f"{waiting} of {_count(pods, 'pod')} cannot pull the image: {cause}"
    return StatusMessage(Reason.IMAGE_PULL, message)


def container_not_started(waiting: int, pods: int, cause: str) -> StatusMessage:
    message = f"{waiting} of {_count(pods, 'pod')} cannot start the container: {cause}"
    return StatusMessage(Reason.CONTAINER_CONFIG, message)


def model_ready(model: str) -> StatusMessage:
    return StatusMessage(Reason.SUCCEEDED, f"the fine-tuned model is {model}")


def dry_run_passed(
    examples: int, tokens: int, steps: int, batch: int, memory: str
) -> StatusMessage:
    """tokens: of an epoch; batch: its examples; memory: `memory_estimate`, or nothing."""
    plan = f"{examples} examples, {tokens} tokens per epoch, {steps} steps of {batch} examples"
    return StatusMessage(Reason.DRY_RUN, f"the dry run found no problem: {plan}{memory}")


def memory_estimate(gib: float, zero_stage: int | None, offload: str | None) -> str:
    return f", about {gib:g} GiB per rank (ZeRO {zero_stage}, offload {offload or 'none'})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# --- errors: status.error, and the ends of attempts -----------------------------------------------


def _error(code: str, message: str, hint: str, param: str | None = None) -> ErrorInfo:
    return ErrorInfo(code=code, message=message[:MESSAGE_CHARACTERS], hint=hint, param=param)


JOB_REMOVED = "the Job was removed before the operator could read why it ended"
UNKNOWN_CAUSE = "the cause is unknown"
OUTPUT_MISSING = _error(
    Reason.INVALID_SPEC,
    "spec.output is missing, and the chart has no default output prefix",
    "set spec.output to an S3 prefix; an administrator can set the chart value `output`",
    "output",
)
DATASET_NOT_RECORDED = _error(
    Reason.INTERNAL,
    "this FineTune was started by an older operator version that did not record the dataset "
    "location",
    "create the FineTune again; its data is checked again",
)


def published_before(attempt: int) -> str:
    return f"attempt {attempt} had already published the model"


def unknown_runtime(runtime: str, known: str) -> ErrorInfo:
    message = f"runtime {runtime!r} is unknown: the chart has {known}"
    hint = "set spec.runtime to one of these, or leave it out"
    return _error(Reason.UNKNOWN_RUNTIME, message, hint, "runtime")


def runtime_without_gpus(runtime: str) -> ErrorInfo:
    hint = "set resources.gpusPerNode to 0, or choose another runtime"
    param = "resources.gpusPerNode"
    return _error(Reason.INVALID_SPEC, f"runtime {runtime!r} has no GPUs", hint, param)


def unknown_model(model: str, namespace: str, known: str) -> ErrorInfo:
    message = (
        f"model {model!r} is unknown: the catalog has {known}, and no Model in namespace "
        f"{namespace!r} has that name or ID"
    )
    hint = "list the fine-tuned models: kubectl get models; the catalog is the chart value `models`"
    return _error(Reason.UNKNOWN_MODEL, message, hint, "model")


def pending_too_long(seconds: int, cause: str) -> ErrorInfo:
    """cause: the status message."""
    message = f"the FineTune was pending for more than {seconds} s: {cause}"
    hint = "free resources, request fewer, or raise pendingDeadlineSeconds"
    return _error(Reason.DEADLINE_EXCEEDED, message, hint, "pendingDeadlineSeconds")


def training_too_long(seconds: int) -> ErrorInfo:
    message = f"training took more than {seconds} s, with all attempts and the waits between them"
    hint = "raise activeDeadlineSeconds in a new FineTune; the checkpoints are kept"
    return _error(Reason.DEADLINE_EXCEEDED, message, hint, "activeDeadlineSeconds")


def stalled(seconds: float, step: int, limit: int) -> ErrorInfo:
    message = f"no step finished for {seconds:.0f} s after step {step} (stallSeconds {limit})"
    hint = (
        "check the logs of the pods for a collective operation that waits for a rank; if a step "
        "takes longer than stallSeconds, raise it"
    )
    return _error(Reason.STALLED, message, hint)


def job_deleted(attempt: int, deleted_at: str | None) -> ErrorInfo:
    """deleted_at: the deletion timestamp of the Job if it still exists."""
    when = f" at {deleted_at}" if deleted_at else ""
    message = f"the Job of attempt {attempt} was deleted{when}, but not by this operator"
    hint = "create a new FineTune to train again; the cluster's audit log shows who deleted the Job"
    return _error(Reason.JOB_DELETED, message, hint)


def name_taken(objects: str, command: str) -> ErrorInfo:
    """command: shows the first of the objects, which do not belong to this FineTune."""
    message = f"the name of an object that this FineTune needs is taken by {objects}"
    hint = f"inspect it ({command}), delete it if it is not needed, and create the FineTune again"
    return _error(Reason.FOREIGN_OBJECT, message, hint)


def model_name_taken(model: str, uri: str, objects: str, command: str) -> ErrorInfo:
    """The training has finished. command: shows the Model that has the name."""
    message = (
        f"the training succeeded, but the model name {model} is taken by {objects}; the files of "
        f"the new model are complete at {uri}"
    )
    hint = (
        "create a Model with another name and ID and with the URI of these files (see the fields "
        f"with {command}), or train again with another suffix"
    )
    return _error(Reason.FOREIGN_OBJECT, message, hint, "suffix")


def restarts_spent(restarts: int) -> str:
    return f"the operator gave up after {_count(restarts, 'restart')} (maxRestarts)"


def attempts_spent(attempts: int) -> str:
    return f"the operator gave up after {attempts} attempts"


def smaller_batch_failed(share: float) -> str:
    return f"a reduction to {share:g} of the micro-batch did not help"


def rank_ended(rank: int, code: int, pod: str) -> ErrorInfo:
    how = f"ended with exit code {code}"
    if code > 128:  # a shell's exit code for a process that a signal ended
        how = f"was killed by signal {code - 128} ({SIGNALS.get(code - 128, 'unknown')})"
    return _error(Reason.RANK_CRASHED, f"rank {rank} {how} (pod {pod})", HINT_CRASH)


def pod_out_of_memory(pod: str, limit: str | None, setting: str) -> ErrorInfo:
    of_limit = f" of {limit}" if limit else ""
    message = f"pod {pod} used more memory than its limit{of_limit} and was killed"
    return _error(Reason.OUT_OF_MEMORY, message, f"raise {setting}")


def pod_deleted(pod: str) -> ErrorInfo:
    return _error(Reason.POD_LOST, f"pod {pod} was deleted while it was running", HINT_POD)


def job_failed(cause: str | None, *, disrupted: bool) -> ErrorInfo:
    """No pod of the Job is left. cause: the message of the Job controller."""
    what = "the Job failed and left no pod that shows why"
    if disrupted:
        what = "the pods were drained, preempted, or lost with their node"
    return _error(Reason.POD_LOST, what + (f": {cause}" if cause else ""), HINT_POD)


def queue_withdrew(queue: str, cause: str | None) -> ErrorInfo:
    """cause: the message of Kueue."""
    why = f": {cause[:900]}" if cause else ""
    hint = "wait: training continues from the last checkpoint when the queue admits the Job again"
    return _error(Reason.PREEMPTED, f"queue {queue} evicted the pods{why}", hint)


class Disruption(Enum):
    """An end of a pod that the cluster caused: reason, message, hint."""

    PREEMPTED = (Reason.PREEMPTED, "was preempted by pods of a higher priority", HINT_PREEMPTED)
    MADE_ROOM = (Reason.PREEMPTED, "was preempted by a critical pod", HINT_PREEMPTED)
    NODE_TAINTED = (Reason.NODE_LOST, "was removed from a node tainted NoExecute", HINT_NODE)
    NODE_LOST = (Reason.NODE_LOST, "was lost with its node", HINT_NODE)
    NODE_SHUT_DOWN = (Reason.NODE_LOST, "ended because its node shut down", HINT_NODE)
    EVICTED = (Reason.EVICTED, "was evicted", HINT_EVICTED)
    EVICTED_BY_NODE = (Reason.EVICTED, "was evicted by its node", HINT_EVICTED)
    TERMINATED_BY_NODE = (Reason.EVICTED, "was terminated by its node", HINT_EVICTED)
    REMOVED = (Reason.POD_LOST, "was removed by the cluster", HINT_POD)
    REJECTED = (Reason.POD_LOST, "was rejected by its node", HINT_POD)


def pod_disrupted(
    disruption: Disruption, pod: str, node: str | None, details: str | None
) -> ErrorInfo:
    """details: the message of Kubernetes."""
    code, what, hint = disruption.value
    where = f" on node {node}" if node else ""
    why = f": {details}" if details else ""
    return _error(code, f"pod {pod}{where} {what}{why}", hint.format(node=node or "NAME"))


def files_not_deleted(cause: str) -> str:
    """The message of a Model's condition FilesDeleted."""
    return f"{cause}. The operator tries again; set deletionPolicy to Retain to keep the files"
