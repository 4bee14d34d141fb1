"""The spec of a FineTune: its fields with bounds and defaults, and the CEL rules across fields.

A description ends with "Default: ..." where the default is not a constant of the schema. The
generated reference page moves that sentence into its column of defaults.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from finetune_api.hyperparameters import RequestedHyperparameters
from finetune_api.quantities import QUANTITY, QUANTITY_CHARACTERS
from finetune_api.tasks import Offload
from finetune_api.training_files import MOST_FILES, TrainingFile, find_broken_rule
from finetune_api.uris import S3Address
from finetune_api.wire import Stored

DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
LABEL_VALUE = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"
LABEL_VALUE_CHARACTERS = 63

Quantity = Annotated[str, Field(min_length=1, max_length=QUANTITY_CHARACTERS, pattern=QUANTITY)]
LabelValue = Annotated[str, Field(max_length=LABEL_VALUE_CHARACTERS, pattern=LABEL_VALUE)]


class Spec(Stored):
    """A part of a spec. Users write it, so every string, list, and map has a bound."""


class Hyperparameters(RequestedHyperparameters):
    """Settings of the training.

    A field that is left out is resolved before the training starts; status.resolved shows its
    value.
    """

    compute_classification_metrics: bool = Field(
        False,
        description="Treat completions as classes and, at the end of each epoch, compute metrics "
        "on the validation file: accuracy and weighted F1, or, for two classes, accuracy, "
        "precision, recall, F-beta, AUROC, and AUPRC.",
    )
    classification_n_classes: int | None = Field(
        None,
        ge=2,
        le=10000,
        description="Number of classes in the completions. Required with "
        "computeClassificationMetrics, unless classificationPositiveClass is set.",
    )
    classification_positive_class: str | None = Field(
        None,
        min_length=1,
        max_length=256,
        description="Completion of the positive class, for two classes. Default: none.",
    )
    classification_betas: list[Annotated[float, Field(ge=0.01, le=100)]] | None = Field(
        None,
        min_length=1,
        max_length=16,
        description="Values of beta for which F-beta is computed, for two classes; requires "
        "classificationPositiveClass. Default: none.",
    )


class Method(Spec):
    """The weights that are trained: all of them, or a LoRA adapter."""

    type: Literal["full", "lora"] = Field(
        "full",
        description="Weights to train: full for all of them, lora for a low-rank adapter, which is "
        "published together with the merged model.",
    )
    rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of the LoRA matrices. Default: 16."
    )
    alpha: float | None = Field(
        None,
        ge=0.01,
        le=4096,
        description="LoRA alpha. The adapter's output is scaled by alpha divided by rank. "
        "Default: twice the rank.",
    )
    dropout: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Dropout probability of the adapter's input during training. Default: 0.",
    )
    targets: list[Annotated[str, Field(min_length=1, max_length=128)]] | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Names of the linear modules that get an adapter, such as q_proj. "
        "Default: all linear layers except the output layer.",
    )


class Resources(Spec):
    """Number of training pods, and the resources of each."""

    nodes: int = Field(1, ge=1, le=512, description="Number of training pods (nodes).")
    gpus_per_node: int = Field(
        1, ge=0, le=64, description="Number of GPUs of each training pod. 0 trains on CPU."
    )
    gpu_resource: str = Field(
        "nvidia.com/gpu",
        min_length=1,
        max_length=128,
        description="Extended resource by which training pods request GPUs.",
    )
    cpu: Quantity | None = Field(
        None,
        description="CPU request and limit of each training pod. Default: no request and no limit.",
    )
    memory: Quantity | None = Field(
        None,
        description="Memory request and limit of each training pod. A value below what the "
        "training certainly needs is refused. Default: a request of the estimate "
        "(status.resolved.memoryPerPodGib), and no limit.",
    )
    ephemeral_storage: Quantity | None = Field(
        None,
        description="Request and limit of each training pod for files on its node: base model, "
        "dataset, published model, and the checkpoint of a resume. Default: on GPUs, a request of "
        "the estimate (status.resolved.storagePerPodGib), and no limit.",
    )
    shm: Quantity | None = Field(
        None,
        description="Size limit of /dev/shm in each training pod. NCCL uses /dev/shm; its contents "
        "count as memory of the pod. Default: no limit of its own.",
    )


class DeepSpeed(Spec):
    """Settings of ZeRO. Stage and offload otherwise follow from the memory estimate."""

    zero_stage: int | None = Field(
        None,
        ge=0,
        le=3,
        description="DeepSpeed ZeRO stage. Default: the lowest stage that fits the memory of the "
        "GPUs; when that is unknown, and on CPU, 1, or 0 for a single process.",
    )
    offload: Offload | None = Field(
        None,
        description="State that is kept in CPU memory: the optimizer's, or the parameters as well "
        "(parameters requires ZeRO stage 3). Default: none, or optimizer or parameters when the "
        "training does not fit the GPUs otherwise.",
    )
    overlap_communication: bool = Field(
        False,
        description="In ZeRO stage 3, gather weights and reduce gradients while the GPUs compute. "
        "Has no effect in other stages and on CPU. Experimental: not verified on GPUs yet.",
    )


class Storage(Spec):
    """Access to S3."""

    secret_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=DNS_SUBDOMAIN,
        description="Name of a Secret in this namespace with AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY, and, for S3-compatible stores, AWS_ENDPOINT_URL. A Secret that is "
        "named here must exist. Pods get only keys for S3 and the model hub. Default: chart value "
        "secretName; without that Secret, the workload identity of the pods' ServiceAccount.",
    )


class Toleration(Spec):
    """A toleration, with the fields and rules of a pod's toleration."""

    key: str | None = Field(
        None, max_length=316, description="Key of the taint. Default: every key, with Exists."
    )
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Relation between key and value. Default: Equal."
    )
    value: str | None = Field(
        None, max_length=63, description="Value of the taint, with operator Equal. Default: empty."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Default: every effect."
    )
    toleration_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds that a taint with effect NoExecute is tolerated. Default: forever.",
    )


class Scheduling(Spec):
    """Constraints on the nodes of all pods, data checks included."""

    node_selector: dict[str, Annotated[str, Field(max_length=63)]] | None = Field(
        None, max_length=32, description="Labels that a node must have. Default: none."
    )
    tolerations: list[Toleration] | None = Field(
        None, max_length=32, description="Node taints the pods tolerate. Default: none."
    )


class FineTuneSpec(Spec):
    """Desired fine-tune. Only trainingFile or trainingFiles is required."""

    model: str = Field(
        "curie",
        min_length=1,
        max_length=253,
        description="Base model: a name from the catalog (chart value models), or the name of a "
        "fine-tuned model in this namespace to continue training.",
    )
    suffix: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description="Part of the fine-tuned model's name, which is "
        "{base}:ft-{organization}:{suffix}-{time}. Default: no such part.",
    )
    training_file: S3Address | None = Field(
        None,
        description="S3 URI of the training data: prompts and completions, or chats, as JSONL, "
        "JSON, CSV, TSV, XLSX, TXT, or Parquet. Required unless trainingFiles is set. "
        "Default: none.",
    )
    training_files: list[TrainingFile] | None = Field(
        None,
        min_length=1,
        max_length=MOST_FILES,
        description="Several training files, in place of trainingFile. Without weights, an epoch "
        "has every example of every file once. With weights, it has the examples of the files in "
        "these proportions. A list of one file is the same as trainingFile. Default: none.",
    )
    validation_file: S3Address | None = Field(
        None,
        description="S3 URI of the validation data, of the same kind as the training data. Do not "
        "repeat training examples in it. Default: no validation.",
    )
    hyperparameters: Hyperparameters = Hyperparameters()
    method: Method = Method()
    resources: Resources = Resources()
    runtime: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="Name of a runtime (chart value runtimes), which determines the image of the "
        "training pods. Default: the first runtime of the chart; with gpusPerNode 0 the first one "
        "for CPU.",
    )
    deepspeed: DeepSpeed | None = None
    storage: Storage | None = None
    output: S3Address | None = Field(
        None,
        description="S3 prefix of all results. The files are below "
        "{output}/{namespace}/{name}-{first 8 characters of the UID}. Default: chart value output.",
    )
    queue_name: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        pattern=DNS_LABEL,
        description="Name of a LocalQueue of Kueue, which then admits the training pods. "
        "Default: no queue.",
    )
    priority_class_name: str | None = Field(
        None,
        min_length=1,
        max_length=253,
        pattern=DNS_SUBDOMAIN,
        description="PriorityClass of all pods. Classes of Kubernetes itself (system-...) are "
        "refused. Default: the cluster's default class.",
    )
    scheduling: Scheduling | None = None
    pod_labels: dict[str, LabelValue] | None = Field(
        None,
        max_length=32,
        description="Labels to add to all pods. The chart value pods.allowedLabelPrefixes lists "
        "the prefixes of the keys that are allowed. Default: none.",
    )
    pod_annotations: dict[str, Annotated[str, Field(max_length=4096)]] | None = Field(
        None,
        max_length=32,
        description="Annotations to add to all pods. The chart value "
        "pods.allowedAnnotationPrefixes lists the prefixes of the keys that are allowed. "
        "Default: none.",
    )
    data_tolerance: float = Field(
        0,
        ge=0,
        le=1,
        description="Fraction of the lines of a data file that may be invalid. Invalid lines are "
        "skipped; more of them fail the FineTune with reason InvalidData.",
    )
    suspend: bool = Field(
        False,
        description="Stop the training after a checkpoint and release its GPUs. Once it is false "
        "again, the training continues from the last checkpoint.",
    )
    cancel: bool = Field(
        False,
        description="Stop the training permanently. Checkpoints and partial results stay in S3.",
    )
    max_restarts: int = Field(
        3,
        ge=0,
        le=100,
        description="Maximum number of restarts after failures that count toward the limit. Node "
        "loss, eviction, and preemption do not count.",
    )
    active_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=31536000,
        description="Seconds from the start of the first attempt after which the FineTune fails "
        "with reason DeadlineExceeded. Restarts and the waiting between attempts are included; a "
        "suspension resets the time. Default: no deadline.",
    )
    pending_deadline_seconds: int | None = Field(
        None,
        ge=1,
        le=31536000,
        description="Consecutive seconds in state pending after which the FineTune fails with "
        "reason DeadlineExceeded. A suspension resets the time. Default: the chart value "
        "pendingDeadlineSeconds (a week), or no deadline with a queueName.",
    )
    stall_seconds: int = Field(
        900,
        ge=10,
        le=86400,
        description="Seconds without a completed step before the attempt is considered stalled and "
        "restarted.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        le=31536000,
        description="Seconds after the end of the FineTune until its Jobs and pods are deleted. "
        "The FineTune, its Model, and its files stay. Default: Jobs and pods are kept.",
    )
    reuse: Literal["IfSame", "Never"] = Field(
        "IfSame",
        description="Use of a model that a former FineTune with this name in this namespace has "
        "published below the same output. IfSame adopts it without training if the base model, "
        "the contents of the data files, and all settings that affect the weights are the same; "
        "Never trains again.",
    )
    dry_run: bool = Field(
        False,
        description="Check the data and resolve all settings, then succeed with reason DryRun "
        "without training.",
    )

    @model_validator(mode="after")
    def _check_training_files(self) -> Self:
        broken = find_broken_rule(self.training_file, self.training_files)
        if broken is not None:
            raise ValueError(broken)
        return self

    @property
    def training_data(self) -> list[TrainingFile]:
        """The training files, whichever field lists them; at least one."""
        if self.training_files is not None:
            return self.training_files
        assert self.training_file is not None
        return [TrainingFile(uri=self.training_file)]
