"""The tasks of the pods: the operator passes one as JSON in the variable FINETUNE_TASK."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import (
    HyperparameterRules,
    RequestedHyperparameters,
    ResolvedHyperparameters,
)
from finetune_api.layout import RunLayout
from finetune_api.limits import DataLimits
from finetune_api.training_files import TrainingFile
from finetune_api.wire import Stored

Offload = Literal["none", "optimizer", "parameters"]
ExhaustedMemory = Literal["gpu", "host"]  # of a GPU, or of the pod


class BaseModelRef(Stored):
    """The model from which the training starts."""

    name: str = Field(
        max_length=253,
        description="Name of the model: that of the catalog, or the id of the fine-tuned model.",
    )
    root: str = Field(
        max_length=253,
        description="Name of the catalog model from which the chain of fine-tunes started.",
    )
    uri: str = Field(
        max_length=1400,
        description="Location of the model's files: s3://bucket/prefix or "
        "hf://organization/name@revision.",
    )
    pretraining_learning_rate: float = Field(
        description="Peak learning rate of the catalog model's pre-training, which "
        "learningRateMultiplier multiplies."
    )
    context_length: int = Field(description="Context length of the model in tokens.")
    trained_examples: int | None = Field(
        None,
        description="Number of examples that the model was fine-tuned on. Absent for a catalog "
        "model.",
    )
    revision: str | None = Field(
        None,
        max_length=128,
        description="Version of the model's files, which every training pod uses: the commit of a "
        "model on a hub; for a model in S3, the digest of its manifest.json, or of the names, "
        "sizes, and ETags of its files. Absent until the data is checked.",
    )

    @property
    def is_continued(self) -> bool:
        """Whether the model is a fine-tuned one."""
        return self.name != self.root


class RuntimeRef(Stored):
    """The runtime: images and accelerator of the pods (chart value runtimes)."""

    name: str = Field(max_length=63, description="Name of the runtime.")
    trainer_image: str = Field(max_length=1024, description="Image of the training pods.")
    prepare_image: str = Field(max_length=1024, description="Image of the pod that checks data.")
    accelerator: Literal["nvidia", "cpu"] = Field(description="Kind of the accelerator.")
    gpu_memory_gib: float | None = Field(
        None,
        description="Memory of one GPU in GiB. Absent when the runtime does not specify it; the "
        "memory of the training is then not checked.",
    )


class FallbackPlan(Stored):
    """A distribution of the model that needs less memory of a GPU than the one before it."""

    zero_stage: int = Field(description="DeepSpeed ZeRO stage.")
    offload: Offload = Field(
        description="State that is kept in CPU memory: none, the optimizer's, or the parameters as "
        "well."
    )
    memory_per_rank_gib: float = Field(description="Estimated peak memory of one GPU in GiB.")
    memory_per_pod_gib: float = Field(
        description="Estimated peak of the host memory of one training pod in GiB."
    )


class RunRef(Stored):
    """The FineTune that a task belongs to, and the prefix of its results."""

    namespace: str
    name: str
    uid: str
    output: str  # the prefix before <namespace>/<name>-<uid8>

    @property
    def layout(self) -> RunLayout:
        return RunLayout.of(self.output, self.namespace, self.name, self.uid)


class MethodRef(Stored):
    """All weights, or a LoRA adapter on the named modules (None: all linear layers)."""

    type: Literal["full", "lora"] = "full"
    rank: int = 16
    alpha: float = 32
    dropout: float = 0
    targets: list[str] | None = None


class Classification(Stored):
    """The classification metrics to compute. `positive_class` is for two classes."""

    n_classes: int | None = None
    positive_class: str | None = None
    betas: list[float] = Field(default_factory=list)


class RankResources(Stored):
    """The number of ranks of the training, and the resources of each."""

    nodes: Annotated[int, Field(ge=1)] = 1
    processes_per_node: Annotated[int, Field(ge=1)] = 1  # one for each GPU, or 1 on CPU
    accelerator: Literal["nvidia", "cpu"] = "cpu"
    gpu_memory_gib: float | None = None  # None: unknown, so that nothing is checked against it
    memory_gib: float | None = None  # of a pod, if the user sets it
    ephemeral_storage_gib: float | None = None  # of a pod, if the user sets it
    has_model_cache: bool | None = None  # whether base models are on a volume that pods share
    zero_stage: int | None = None  # None: the prepare Job chooses it
    offload: Offload | None = None  # None: the prepare Job chooses it

    @property
    def ranks(self) -> int:
        return self.nodes * self.processes_per_node


class ModelCacheRef(Stored):
    """A volume in the training pods that keeps base models for later attempts and FineTunes."""

    path: str  # where it is mounted
    max_bytes: int | None = None  # of all models in it; None: as many as the volume holds
    free_share: float = 0  # of the file system, which models leave free


class ReuseRef(Stored):
    """What the name of a model that is used again must contain."""

    organization: str
    suffix: str | None = None


class PrepareTask(Stored):
    """Check the data, count tokens, resolve hyperparameters, and write the tokenized dataset."""

    run: RunRef
    base: BaseModelRef
    training_file: str  # the first one, if there are several
    training_files: list[TrainingFile] | None = None  # two or more; None: only training_file
    validation_file: str | None = None
    hyperparameters: RequestedHyperparameters = RequestedHyperparameters()
    rules: HyperparameterRules = HyperparameterRules()
    limits: DataLimits = DataLimits()
    data_tolerance: float = 0
    method: MethodRef = MethodRef()
    classification: Classification | None = None
    workers: RankResources = RankResources()
    # Search for the same training of a former FineTune with this name; None: do not.
    reuse: ReuseRef | None = None


class DeletionTask(Stored):
    """Delete the files of a Model, as its manifest lists them."""

    namespace: str  # the namespace of the Model, and the prefix of its files
    model: str  # the id, for messages
    uri: str
    manifest_sha256: str | None = None
    fine_tune: str | None = None  # the name of the FineTune that trained the model
    fine_tune_uid: str | None = None


class FetchTask(Stored):
    """Download the files of a model that a server then loads, and verify their digests."""

    model: str  # the id, for messages
    uri: str
    manifest_sha256: str | None = None  # that the manifest must have; None: any
    folder: str  # of the pod, in which config.json and the weights are afterwards


class LookupTask(Stored):
    """Find the model of a FineTune, which a Job that was deleted may have published."""

    run: RunRef


class TrainTask(Stored):
    """One attempt at the training. Every pod of the attempt gets the same value."""

    run: RunRef
    attempt: int
    base: BaseModelRef
    dataset: str  # s3://..., written by the prepare Job
    organization: str
    suffix: str | None = None
    hyperparameters: ResolvedHyperparameters
    training_examples: int
    validation_examples: int = 0
    training_file: str  # the first one, if there are several
    validation_file: str | None = None
    method: MethodRef = MethodRef()
    classification: Classification | None = None
    nodes: int
    processes_per_node: int  # one for each GPU, or 1 on CPU
    accelerator: Literal["nvidia", "cpu"]
    zero_stage: int = 1
    offload: Offload = "none"
    overlap_communication: bool | None = None  # of ZeRO stage 3 with the computation
    packing: bool = True  # several examples in one row, where the model supports it
    checkpoint_seconds: float = 600  # between two checkpoints within an epoch
    # Fraction of the normal tokens in a micro-batch: 1, 0.5, 0.25, ... It is halved after each
    # attempt that ran out of memory.
    micro_batch_share: Annotated[float, Field(gt=0, le=1)] = 1
    model_cache: ModelCacheRef | None = None  # None: the base model is only in the pod's own volume
    master_host: str  # DNS name of pod 0
    master_port: int
    progress_port: int
