"""The status of a FineTune. The operator writes it, and it outlives the pods."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.tasks import BaseModelRef, ExhaustedMemory, FallbackPlan, Offload, RuntimeRef
from finetune_api.training_files import MOST_FILES, TrainingFileCounts
from finetune_api.wire import Stored

Timestamp = Annotated[str, Field(max_length=64)]  # RFC 3339 in UTC, whole seconds
ReasonWord = Annotated[str, Field(max_length=128)]
Hint = Annotated[str, Field(max_length=1024)]
Node = Annotated[str, Field(max_length=253)]
Line = Annotated[str, Field(max_length=512)]
S3Prefix = Annotated[str, Field(max_length=1400)]

RANK = (
    "Rank of the process that failed first; rank 0 is on the first GPU of pod 0. When only the pod "
    "is known, its index."
)
NODE = "Node of that process's pod."
EXIT_CODE = (
    "Exit code of that process: 1 for an unexpected error, 65 for invalid data or settings, 69 for "
    "unavailable storage, and 128 plus the number of the signal when a signal ended it."
)
HINT = "Suggested remedy."


class Condition(Stored):
    """A condition, with the fields of metav1.Condition."""

    type: str = Field(max_length=316, description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(
        description="True when the condition holds, Unknown when that is not decided yet."
    )
    reason: str = Field(max_length=1024, description="Reason for the status in one word.")
    message: str = Field(
        "",
        max_length=4096,
        description="Explanation in one sentence. Empty for most conditions that do not hold.",
    )
    last_transition_time: Timestamp = Field(
        description="Time of the last change of status (RFC 3339, UTC)."
    )
    observed_generation: int | None = Field(
        None, description="Generation of the spec that the condition describes."
    )


class Progress(Stored):
    """Progress of the training as pod 0 reports it."""

    step: int = Field(0, description="Number of completed optimizer steps.")
    steps: int = Field(0, description="Number of optimizer steps in all epochs.")
    epoch: float = Field(
        0, description="Number of completed epochs; 1.5 is the middle of the second epoch."
    )
    percent: str = Field(
        "",
        max_length=16,
        description='Share of the optimizer steps that are completed, such as "41 %". Printed in '
        "column PROGRESS.",
    )
    loss: float | None = Field(
        None,
        description="Training loss of the last step, in nats per token, with prompts weighted by "
        "promptLossWeight; after success that of the last epoch. Printed in column LOSS.",
    )
    validation_loss: float | None = Field(
        None,
        description="Loss on the validation data as of the last validation. During an epoch it is "
        "measured on one batch, at the end of each epoch on the whole file. Absent without a "
        "validation file.",
    )
    validation_sequence_accuracy: float | None = Field(
        None,
        description="Fraction of validation completions whose tokens are all predicted correctly.",
    )
    validation_token_accuracy: float | None = Field(
        None, description="Fraction of validation completion tokens that are predicted correctly."
    )
    learning_rate: float | None = Field(None, description="Learning rate of the last step.")
    tokens_per_second: float | None = Field(
        None,
        description="Training speed over the last steps in tokens per second, in total over all "
        "GPUs, without padding.",
    )
    eta: Timestamp | None = Field(
        None,
        description="Estimated time of the end of training (RFC 3339, UTC). Printed in column ETA. "
        "Absent before the first steps and after the end.",
    )
    detail: str | None = Field(
        None,
        max_length=512,
        description='Current activity other than training, such as "downloading the base model: '
        '34 %".',
    )
    updated_at: Timestamp | None = Field(
        None, description="Time at which the operator read the progress (RFC 3339, UTC)."
    )


class Attempt(Stored):
    """One attempt at the training: a Job whose pods start and end together."""

    number: int = Field(description="Number of the attempt. The first one is 1.")
    started_at: Timestamp = Field(
        description="Start of the attempt (RFC 3339, UTC). It is in the future while a restart is "
        "delayed."
    )
    ended_at: Timestamp | None = Field(
        None, description="End of the attempt (RFC 3339, UTC). Absent until then."
    )
    reason: ReasonWord | None = Field(
        None,
        description="Cause of the end in one CamelCase word, such as Succeeded, OutOfMemory, or "
        "NodeLost. Absent until the end.",
    )
    message: str | None = Field(
        None, max_length=1024, description="Cause of the end in one sentence."
    )
    hint: Hint | None = Field(None, description=HINT)
    counted: bool | None = Field(
        None,
        description="Whether the attempt counts toward spec.maxRestarts. Absent when it did not "
        "fail.",
    )
    rank: int | None = Field(None, description=RANK)
    node: Node | None = Field(None, description=NODE)
    exit_code: int | None = Field(None, description=EXIT_CODE)
    log: list[Line] | None = Field(
        None,
        max_length=20,
        description="Last lines of that process's log. Only the newest eight attempts keep them.",
    )
    resumed_from_step: int | None = Field(
        None,
        description="Step of the checkpoint from which the attempt continued; 0 when there was "
        "none. Absent for the first attempt, and until the attempt trains.",
    )
    micro_batch_share: float | None = Field(
        None,
        description="Tokens in a micro-batch as a fraction of the normal number, halved after each "
        "attempt that ran out of GPU memory, or, on CPU, of memory. The batch size does not "
        "change. Absent when it is 1.",
    )
    zero_stage: int | None = Field(
        None,
        description="DeepSpeed ZeRO stage, if the attempt used one of status.resolved.fallbacks.",
    )
    offload: Offload | None = Field(
        None,
        description="State that was kept in CPU memory, if the attempt used one of "
        "status.resolved.fallbacks.",
    )
    exhausted_memory: ExhaustedMemory | None = Field(
        None,
        description="Memory that the attempt ran out of: gpu for that of a GPU, host for that of "
        "the pod or its node. Absent for any other end, and when it is unknown.",
    )


class ErrorInfo(Stored):
    """Cause of the failure of a FineTune."""

    code: ReasonWord = Field(
        description="Cause in one CamelCase word; equal to status.reason when the FineTune failed."
    )
    message: str = Field(
        max_length=2048, description="Description of the failure and its location."
    )
    param: str | None = Field(
        None,
        max_length=256,
        description="Field of the spec that the failure is about, such as trainingFile.",
    )
    hint: Hint | None = Field(None, description=HINT)
    rank: int | None = Field(None, description=RANK)
    node: Node | None = Field(None, description=NODE)
    exit_code: int | None = Field(None, description=EXIT_CODE)
    lines: list[Line] | None = Field(
        None,
        max_length=20,
        description="First invalid lines of the data, at most 20, each with its line number. "
        "data-report.jsonl in the output lists all of them.",
    )
    log: list[Line] | None = Field(
        None, max_length=20, description="Last lines of that process's log."
    )


class EventEntry(Stored):
    """One Event of a FineTune. The status keeps it after the Kubernetes Event has expired.

    `reason`, `attempt`, and `key` identify an Event: the operator records each combination once.
    """

    seq: int | None = Field(
        None,
        description="Number of the Event, from 1. A number of a dropped Event is not used again.",
    )
    at: Timestamp = Field(description="Time of the Event (RFC 3339, UTC).")
    level: Literal["info", "warning", "error"] = Field(
        "info",
        description="Severity of the Event. warning and error correspond to Kubernetes Events of "
        "type Warning.",
    )
    reason: ReasonWord = Field(description="Machine-readable reason, for example EpochCompleted.")
    message: str = Field(max_length=1024, description="Human-readable message.")
    attempt: int | None = Field(
        None,
        description="Number of the attempt that the Event is about. Absent when it is about none.",
    )
    key: str | None = Field(
        None,
        max_length=128,
        description="Distinguishes Events with the same reason, for example the epoch number of "
        "EpochCompleted.",
    )


class Resolved(Stored):
    """The settings of a FineTune as used. They do not change during its life."""

    base: BaseModelRef
    runtime: RuntimeRef
    organization: str = Field(
        max_length=253,
        description="Organization in the fine-tuned model's name (chart value organization, or the "
        "namespace).",
    )
    output: S3Prefix = Field(description="S3 prefix of all results.")
    secret_name: str = Field(
        max_length=253, description="Name of the Secret with the S3 credentials."
    )
    pending_deadline_seconds: int | None = Field(
        None, description="The chart's default of spec.pendingDeadlineSeconds. Absent with a queue."
    )
    hyperparameters: ResolvedHyperparameters | None = Field(
        None, description="Every hyperparameter as used. Absent until the data is checked."
    )
    dataset: S3Prefix | None = Field(
        None,
        description="S3 prefix of the tokenized dataset. FineTunes with equal inputs share it. "
        "Absent until the data is checked.",
    )
    zero_stage: int | None = Field(
        None, description="DeepSpeed ZeRO stage. Absent until it is chosen."
    )
    offload: Offload | None = Field(
        None,
        description="State that is kept in CPU memory: none, the optimizer's, or the parameters as "
        "well. Absent until it is chosen, or when it is none by default.",
    )
    memory_per_rank_gib: float | None = Field(
        None,
        description="Estimated peak memory of one GPU, or of one process on CPU, in GiB. Absent "
        "when the base model's config is not sufficient for an estimate.",
    )
    memory_per_pod_gib: float | None = Field(
        None,
        description="Estimated peak of the host memory of one training pod in GiB, without pages "
        "of files that the kernel can reclaim. Training pods request it unless the spec sets "
        "resources.memory. Absent without an estimate.",
    )
    storage_per_pod_gib: float | None = Field(
        None,
        description="Estimated size of the files of one training pod in GiB: base model, dataset, "
        "published model, and the checkpoint of a resume. Absent without an estimate.",
    )
    checkpoint_per_pod_gib: float | None = Field(
        None,
        description="Size of one training pod's part of a checkpoint in GiB, from which the "
        "pod's termination grace period follows. Absent without an estimate.",
    )
    fallbacks: list[FallbackPlan] | None = Field(
        None,
        max_length=16,
        description="Distributions of the model for attempts after one that ran out of GPU memory "
        "with a quarter of the micro-batch, in their order. Absent when there are none.",
    )
    training_files: list[TrainingFileCounts] | None = Field(
        None,
        max_length=MOST_FILES,
        description="Sizes of the training files, in the order of spec.trainingFiles. Absent "
        "until the data is checked, and for a single file.",
    )
    training_examples: int | None = Field(
        None,
        description="Number of training examples in one epoch, without the skipped lines.",
    )
    validation_examples: int | None = Field(
        None, description="Number of validation examples, without the skipped lines."
    )
    training_tokens: int | None = Field(
        None,
        description="Number of tokens in one epoch: prompts, completions, and end-of-sequence "
        "tokens.",
    )
    steps: int | None = Field(None, description="Number of optimizer steps in all epochs.")


class AdoptedFrom(Stored):
    """Former FineTune with this name whose model this FineTune adopted without training."""

    uid: str = Field(
        max_length=64,
        description="UID of the FineTune that trained the model. The files at status.modelUri are "
        "below its prefix.",
    )


class FineTuneStatus(Stored):
    """Observed state of the FineTune, written by the operator. It outlives the pods."""

    state: Literal["pending", "running", "succeeded", "failed", "cancelled"] | None = Field(
        None,
        description="Phase of the FineTune. succeeded, failed, and cancelled are final. Absent "
        "until the operator has accepted the FineTune.",
    )
    stage: str | None = Field(
        None,
        max_length=32,
        description="Part of the phase: validating, queued, starting, training, evaluating, or "
        "publishing. Absent after the end.",
    )
    reason: ReasonWord | None = Field(
        None,
        description="Cause of the state in one CamelCase word, such as Training or OutOfMemory.",
    )
    message: str | None = Field(
        None, max_length=2048, description="Cause of the state in one sentence."
    )
    observed_generation: int | None = Field(
        None, description="Generation of the spec that this status describes."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Conditions Validated, Running, Suspended, Succeeded, and Failed, and those of "
        "kstatus: Ready (succeeded), Reconciling (not ended), and Stalled (failed or cancelled).",
    )
    fine_tuned_model: str | None = Field(
        None,
        max_length=256,
        description="Name of the fine-tuned model. Set spec.model of another FineTune to it to "
        "continue training. Absent until the model is published.",
    )
    model_uri: S3Prefix | None = Field(
        None, description="S3 prefix of the model's files. Absent until the model is published."
    )
    result_files: list[Annotated[str, Field(max_length=1400)]] | None = Field(
        None,
        max_length=16,
        description="S3 URIs of the result files, results.csv first. Absent until the model is "
        "published.",
    )
    adopted_from: AdoptedFrom | None = None
    resolved: Resolved | None = Field(
        None,
        description="Settings as used: the names of the spec are resolved when the FineTune is "
        "accepted, and the data check adds hyperparameters and sizes. Later changes of chart "
        "values do not affect this FineTune. Absent until then.",
    )
    progress: Progress | None = Field(
        None,
        description="Progress of the training as pod 0 reports it, updated at most every ten "
        "seconds. Absent until pod 0 reports.",
    )
    trained_tokens: int | None = Field(
        None, description="Number of tokens trained on so far. Every epoch counts."
    )
    gpu_seconds: float | None = Field(
        None,
        description="GPU time of all attempts: number of GPUs times seconds. Absent until the end, "
        "and on CPU.",
    )
    attempts: list[Attempt] = Field(
        default_factory=list,
        max_length=256,
        description="Attempts at the training, in their order. All pods of an attempt start "
        "and end together; the next attempt continues from the last checkpoint.",
    )
    error: ErrorInfo | None = Field(
        None, description="Cause of the failure. Absent unless the state is failed."
    )
    events: list[EventEntry] = Field(
        default_factory=list,
        max_length=64,
        description="The newest 64 Events, the oldest one first.",
    )
    started_at: Timestamp | None = Field(
        None, description="Time at which the operator accepted the FineTune (RFC 3339, UTC)."
    )
    finished_at: Timestamp | None = Field(
        None, description="Time of the end of the FineTune (RFC 3339, UTC)."
    )
