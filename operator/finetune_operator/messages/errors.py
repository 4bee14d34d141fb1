"""Errors and their hints: `status.error`, and the ends of attempts."""

from enum import Enum

from finetune_api.finetune_status import ErrorInfo
from finetune_api.names import Reason
from finetune_operator.messages.text import MESSAGE_CHARACTERS
from finetune_operator.messages.text import count as _count

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


def output_too_long(size: int, most: int) -> ErrorInfo:
    """size, most: bytes of the chart value."""
    message = f"the chart value `output` has {size} bytes; at most {most} are possible"
    hint = "set spec.output to a shorter S3 prefix; an administrator can shorten the chart value"
    return _error(Reason.INVALID_SPEC, message, hint, "output")


def model_name_too_long(size: int, most: int) -> ErrorInfo:
    """size, most: characters of {base}:ft-{organization}:{suffix}-{time}."""
    message = f"the name of the fine-tuned model would have {size} characters; at most {most} are "
    hint = "shorten spec.suffix; an administrator can shorten the chart value `organization`"
    return _error(Reason.INVALID_SPEC, message + "possible", hint, "suffix")


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


def key_refused(field: str, problem: str) -> ErrorInfo:
    """field: podLabels or podAnnotations. problem: of one of its keys or values."""
    hint = f"correct or remove it from spec.{field} of a new FineTune"
    return _error(Reason.INVALID_SPEC, f"spec.{field}: {problem}", hint, field)


def key_not_allowed(field: str, key: str, value: str, prefixes: str | None) -> ErrorInfo:
    """value: of the chart, with the allowed prefixes."""
    allowed = f"the chart allows {prefixes}" if prefixes else "the chart allows no key"
    hint = f"remove it, or ask an administrator to add its prefix to the chart value {value}"
    message = f"spec.{field}: key {key!r} is not allowed: {allowed}"
    return _error(Reason.INVALID_SPEC, message, hint, field)


def one_training_file(image: str) -> ErrorInfo:
    """image: of an older version, whose prepare Job read only the first of several files."""
    message = f"the prepare image {image} knows only one training file: it is an older version"
    hint = (
        "use the prepare image of the operator's version (chart value images.prepare), or merge "
        "the files: finetune prepare-data FILE FILE"
    )
    return _error(Reason.INVALID_SPEC, message, hint, "trainingFiles")


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


def job_took_too_long(component: str, seconds: int | None) -> ErrorInfo:
    """component: prepare, lookup, or delete. seconds: the deadline, if it is known."""
    limit = f"{seconds} s" if seconds else "its deadline"
    message = f"the {component} Job took more than {limit}, with all of its retries and waits"
    hint = (
        "read the status and the Events for what it waited for; data or a base model that is that "
        "slow may be damaged; an administrator can raise the chart value "
        "pods.cpuJobDeadlineSeconds"
    )
    return _error(Reason.DEADLINE_EXCEEDED, message, hint)


def stalled(seconds: float, step: int, limit: int) -> ErrorInfo:
    message = f"no step finished for {seconds:.0f} s after step {step} (stallSeconds {limit})"
    hint = (
        "check the logs of the pods for a collective operation that waits for a rank; if a step "
        "takes longer than stallSeconds, raise it"
    )
    return _error(Reason.STALLED, message, hint)


def job_was_deleted(attempt: int, deleted_at: str | None) -> str:
    """deleted_at: the deletion timestamp of the Job if it still exists."""
    when = f" at {deleted_at}" if deleted_at else ""
    return f"the Job of attempt {attempt} was deleted{when}, but not by this operator"


HINT_DELETED = (
    "create a new FineTune to train again; the cluster's audit log shows who deleted the Job"
)


def nothing_published(deletion: str) -> ErrorInfo:
    """deletion: `job_was_deleted`."""
    message = f"no model was published: {deletion}"
    return _error(Reason.JOB_DELETED, message, HINT_DELETED)


def lookup_failed(deletion: str, cause: str) -> ErrorInfo:
    """deletion: `job_was_deleted`. cause: of the failure of the lookup Job."""
    message = f"the search for a published model failed: {cause}; {deletion}"
    return _error(Reason.JOB_DELETED, message, HINT_DELETED)


PODS_REMOVED = "its pods were removed before the operator could read them"
WORD_UNREADABLE = "its termination message is not a result"
WORD_FOREIGN = "its termination message names a model or addresses that are not this FineTune's"


def result_lost(what: str, cause: str) -> ErrorInfo:
    """what: the Job whose pods ended well. cause: `PODS_REMOVED`, `WORD_UNREADABLE`, ..."""
    hint = (
        "nothing is lost in S3; see what removes completed pods or changes their status: cleanup "
        "jobs, a TTL on Jobs, or an admission webhook"
    )
    return _error(Reason.RESULT_LOST, f"{what} succeeded, but its result is lost: {cause}", hint)


def results_lost_in_a_row(times: int) -> str:
    return f"the operator gave up after {times} lost results in a row"


def attempt_in_words(attempt: int) -> str:
    return f"attempt {attempt}"


PREPARE_JOB = "the prepare Job"
LOOKUP_JOB = "the lookup Job"


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


def larger_request_failed(amount: str) -> str:
    return f"a larger memory request ({amount}) did not help"


def hint_for_limit(limit: str, estimate: float) -> str:
    """limit: resources.memory. estimate: GiB of host memory per pod."""
    return f"raise resources.memory: it is {limit}, and the estimate is {estimate:,.1f} GiB per pod"


def hint_for_request(amount: str) -> str:
    """amount: what the pods requested, from the estimate."""
    return (
        f"use nodes with more memory: the pods requested {amount}, from the estimate; to request "
        "more, set resources.memory"
    )


def rank_ended(rank: int, code: int, pod: str) -> ErrorInfo:
    how = f"ended with exit code {code}"
    if code > 128:  # a shell's exit code for a process that a signal ended
        how = f"was killed by signal {code - 128} ({SIGNALS.get(code - 128, 'unknown')})"
    return _error(Reason.RANK_CRASHED, f"rank {rank} {how} (pod {pod})", HINT_CRASH)


def pod_out_of_memory(pod: str, limit: str | None, setting: str) -> ErrorInfo:
    """limit: of the container, if it has one. setting: the one to raise."""
    why = f"it used more memory than its limit of {limit}" if limit else "its node had none left"
    message = f"pod {pod} was killed for memory: {why}"
    return _error(Reason.OUT_OF_MEMORY, message, f"raise {setting}")


def pod_deleted(pod: str) -> ErrorInfo:
    return _error(Reason.POD_LOST, f"pod {pod} was deleted while it was running", HINT_POD)


def injected_failed(container: str, pod: str, code: int, cause: str) -> ErrorInfo:
    """container: an injected one. cause: its reason and termination message."""
    message = f"container {container} of pod {pod} ended with exit code {code}: {cause}"
    hint = (
        f"read its log (kubectl logs {pod} -c {container}), or exclude the pods from its webhook: "
        "chart values runtimes[].podLabels and runtimes[].podAnnotations"
    )
    return _error(Reason.INJECTED_CONTAINER, message, hint)


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


def gang_released(held: int, wanted: int, favored: str | None) -> ErrorInfo:
    """held: the pods that had a node. favored: a FineTune of the same namespace, if it is there."""
    places = _count(held, "place")
    whose = f"FineTune {favored}" if favored else "a FineTune of another namespace"
    message = (
        f"the cluster had room for {held} of {_count(wanted, 'pod')}, so the operator released "
        f"{places} that {whose} needs"
    )
    hint = "wait: training continues when there is room for all pods; Kueue avoids such conflicts"
    return _error(Reason.GANG_RELEASED, message, hint)


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


def files_job_refused(cause: str) -> str:
    """cause: why the API server does not create the Job that deletes the files."""
    return f"{cause}. To keep the files, set deletionPolicy to Retain"


def files_in_use(finetune: str) -> str:
    return (
        f"FineTune {finetune} continues from this model or may adopt it: the files are deleted "
        "when it has ended. To keep them, set deletionPolicy to Retain"
    )


def files_kept_in_namespace(namespace: str, uri: str) -> str:
    """No Pod can start in the namespace."""
    return (
        f"namespace {namespace} is terminating, so no Job can delete the files: they stay. To "
        f"delete them: {delete_command(uri)}"
    )


def files_kept(problem: str, uri: str) -> str:
    """problem: why the files may belong to another model."""
    return (
        f"{problem}. Nothing was deleted. If the files are no longer needed, delete them: "
        f"{delete_command(uri)}"
    )


def delete_command(uri: str) -> str:
    return f"aws s3 rm --recursive {uri.rstrip('/')}/"


def owner_missing(uri: str) -> str:
    return f"the Model does not name the FineTune (spec.fineTune) that published {uri}"


def address_of_other(uri: str, expected: str) -> str:
    """expected: the form of the address of the Model's own files."""
    return f"{uri} is not the address of the files of this Model ({expected})"


def files_shared(uri: str, model: str) -> str:
    return f"Model {model} names files at {uri}, too"


def model_going(model: str) -> ErrorInfo:
    """model: the name of the Model that the FineTune names."""
    message = f"Model {model} is being deleted, so no FineTune can continue from it"
    hint = (
        "list the other models: kubectl get models; a Model that is being deleted does not return"
    )
    return _error(Reason.UNKNOWN_MODEL, message, hint, "model")


def files_job_taken(objects: str) -> str:
    """objects: the object that has the name of the Job."""
    return f"the name of the Job that deletes the files is taken by {objects}: delete it"
