"""The spec of a FineTune, as users write it: bounds, defaults, and CEL rules."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import LrSchedule
from finetune_api.tasks import Offload
from finetune_api.uris import S3_PATTERN
from finetune_api.wire import Stored

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

S3Address = Annotated[str, Field(min_length=6, max_length=1024, pattern=S3_PATTERN)]
Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=QUANTITY)]


class Spec(Stored):
    """A part of a spec, written by people: every string, list and map has a bound."""


class Hyperparameters(Spec):
    """What steers the training; what is left out is resolved and then stands in status."""

    n_epochs: int = Field(4, ge=1, le=50, description="Passes over the training file.")
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Examples an optimizer step, whatever the number of GPUs. "
        "Default: 0.2 % of the training examples, at least 1, at most 256.",
    )
    learning_rate_multiplier: float | None = Field(
        None,
        ge=1e-6,
        le=100,
        description="Times the base model's pre-training learning rate. Tried range 0.02-0.2. "
        "Default: 0.05, 0.1 or 0.2 by the final batch size.",
    )
    prompt_loss_weight: float = Field(
        0.1, ge=0, le=1, description="Weight of prompt tokens in the loss; completions weigh 1."
    )
    compute_classification_metrics: bool = Field(
        False, description="Accuracy, F1 and, for two classes, AUROC and AUPRC each epoch."
    )
    classification_n_classes: int | None = Field(
        None, ge=2, le=10000, description="How many classes the completions have."
    )
    classification_positive_class: str | None = Field(
        None, min_length=1, max_length=256, description="The completion that counts as positive."
    )
    classification_betas: list[Annotated[float, Field(ge=0.01, le=100)]] | None = Field(
        None, min_length=1, max_length=16, description="An F-beta column each; two classes only."
    )
    learning_rate: float | None = Field(
        None, ge=1e-9, le=1, description="Absolute peak learning rate instead of a multiplier."
    )
    warmup_ratio: float | None = Field(
        None, ge=0, le=1, description="Share of the steps that the learning rate climbs."
    )
    weight_decay: float | None = Field(None, ge=0, le=1, description="AdamW's weight decay.")
    lr_schedule: LrSchedule | None = Field(None, description="After the warm-up.")
    max_sequence_length: int | None = Field(
        None, ge=8, le=1048576, description="Tokens of prompt and completion together."
    )
    seed: int | None = Field(None, ge=0, le=2147483647, description="Of the order of examples.")


class Method(Spec):
    """How the weights are trained."""

    type: Literal["full", "lora"] = Field("full", description="All weights, or an adapter.")
    rank: int | None = Field(None, ge=1, le=1024, description="LoRA rank.")
    alpha: float | None = Field(None, ge=0.01, le=4096, description="LoRA alpha.")
    dropout: float | None = Field(None, ge=0, le=1, description="LoRA dropout.")
    targets: list[Annotated[str, Field(min_length=1, max_length=128)]] | None = Field(
        None, min_length=1, max_length=64, description="Module names; default: all linear layers."
    )


class Resources(Spec):
    """What each pod gets."""

    nodes: int = Field(1, ge=1, le=512, description="Pods, one a node.")
    gpus_per_node: int = Field(1, ge=0, le=64, description="0 trains on CPU.")
    gpu_resource: str = Field(
        "nvidia.com/gpu", min_length=1, max_length=128, description="The GPUs' resource name."
    )
    cpu: Quantity | None = Field(None, description="CPU request and limit of a pod.")
    memory: Quantity | None = Field(None, description="Memory request and limit of a pod.")
    shm: Quantity | None = Field(None, description="Size of /dev/shm, which NCCL needs.")


class DeepSpeed(Spec):
    """Overrides of what is chosen from size and GPUs."""

    zero_stage: int | None = Field(None, ge=0, le=3, description="ZeRO stage.")
    offload: Offload | None = Field(
        None, description="To CPU memory: the optimizer's states, or parameters as well (stage 3)."
    )


class Storage(Spec):
    """Where the S3 credentials are."""

    secret_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=DNS_SUBDOMAIN,
        description="A Secret in this namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
        "and, for S3-compatible stores, AWS_ENDPOINT_URL.",
    )


class Toleration(Spec):
    """As in a pod."""

    key: str | None = Field(None, max_length=316)
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = Field(None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = Field(None, ge=0)


class Scheduling(Spec):
    """Where the pods may run."""

    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        None, max_length=32, description="Labels that a node must have."
    )
    tolerations: list[Toleration] | None = Field(None, max_length=32)


class FineTuneSpec(Spec):
    """What a person asks for; only trainingFile is required."""

    model: str = Field(
        "curie",
        min_length=1,
        max_length=253,
        description="A catalog name, or the name of a fine-tuned model to continue from.",
    )
    suffix: str | None = Field(
        None, min_length=1, max_length=40, description="Becomes part of the model's name."
    )
    training_file: S3Address = Field(
        description="Prompts and completions, or chats: JSONL, JSON, CSV, TSV, XLSX, TXT or "
        "Parquet, s3://..."
    )
    validation_file: S3Address | None = Field(
        None, description="Of the same kind; no example should stand in both."
    )
    hyperparameters: Hyperparameters = Hyperparameters()
    method: Method = Method()
    resources: Resources = Resources()
    runtime: str | None = Field(
        None, min_length=1, max_length=63, pattern=DNS_LABEL, description="From the chart's list."
    )
    deepspeed: DeepSpeed | None = None
    storage: Storage | None = None
    output: S3Address | None = Field(None, description="Prefix of all results; default: chart.")
    queue_name: str | None = Field(
        None, min_length=1, max_length=63, pattern=DNS_LABEL, description="Kueue's local queue."
    )
    priority_class_name: str | None = Field(
        None, min_length=1, max_length=253, pattern=DNS_SUBDOMAIN
    )
    scheduling: Scheduling | None = None
    data_tolerance: float = Field(
        0, ge=0, le=1, description="Share of wrong lines that is skipped instead of an error."
    )
    suspend: bool = Field(False, description="Frees the GPUs after a checkpoint.")
    cancel: bool = Field(False, description="Final; keeps checkpoint and partial results.")
    max_restarts: int = Field(3, ge=0, le=100, description="Attempts after the first, if counted.")
    active_deadline_seconds: int | None = Field(None, ge=1, le=31536000)
    pending_deadline_seconds: int | None = Field(None, ge=1, le=31536000)
    stall_seconds: int = Field(900, ge=10, le=86400, description="No progress for so long: stall.")
    ttl_seconds_after_finished: int | None = Field(
        None, ge=0, le=31536000, description="Then the pods go; the FineTune stays."
    )
    dry_run: bool = Field(False, description="Check the data and resolve all, then stop.")


# What may change after creation; all else is what was trained.
MUTABLE_FIELDS = frozenset(
    {
        "suspend",
        "cancel",
        "maxRestarts",
        "activeDeadlineSeconds",
        "pendingDeadlineSeconds",
        "stallSeconds",
        "ttlSecondsAfterFinished",
    }
)

# (CEL rule on the spec, message)
SPEC_RULES: tuple[tuple[str, str], ...] = (
    (
        "!self.hyperparameters.computeClassificationMetrics || has(self.validationFile)",
        "hyperparameters.computeClassificationMetrics needs a validationFile",
    ),
    (
        "!self.hyperparameters.computeClassificationMetrics "
        "|| has(self.hyperparameters.classificationNClasses) "
        "|| has(self.hyperparameters.classificationPositiveClass)",
        "hyperparameters.computeClassificationMetrics needs classificationNClasses, or "
        "classificationPositiveClass for two classes",
    ),
    (
        "!has(self.hyperparameters.classificationBetas) "
        "|| has(self.hyperparameters.classificationPositiveClass)",
        "hyperparameters.classificationBetas needs classificationPositiveClass",
    ),
    (
        "!has(self.hyperparameters.learningRate) "
        "|| !has(self.hyperparameters.learningRateMultiplier)",
        "set hyperparameters.learningRate or learningRateMultiplier, not both",
    ),
    (
        "self.method.type == 'lora' || (!has(self.method.rank) && !has(self.method.alpha) "
        "&& !has(self.method.dropout) && !has(self.method.targets))",
        "method.rank, alpha, dropout and targets belong to method.type lora",
    ),
    (
        "!has(self.deepspeed) || !has(self.deepspeed.offload) "
        "|| self.deepspeed.offload != 'parameters' || !has(self.deepspeed.zeroStage) "
        "|| self.deepspeed.zeroStage == 3",
        "deepspeed.offload parameters needs deepspeed.zeroStage 3",
    ),
    (
        "!has(self.priorityClassName) || !self.priorityClassName.startsWith('system-')",
        "priorityClassName can't be one of Kubernetes' own (system-...)",
    ),
)
