"""What the operator tells a pod: one JSON value in the environment variable FINETUNE_TASK."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import HyperparameterRules, LrSchedule, ResolvedHyperparameters
from finetune_api.layout import RunLayout
from finetune_api.limits import DataLimits
from finetune_api.wire import Stored


class BaseModelRef(Stored):
    """The model that training starts from."""

    name: str = Field(max_length=253)  # as the user wrote it
    root: str = Field(max_length=253)  # the catalog name at the bottom of the chain
    uri: str = Field(max_length=1400)  # s3://... or hf://org/name@revision
    pretraining_learning_rate: float
    context_length: int
    trained_examples: int | None = None  # of the fine-tune it came from, when it is one

    @property
    def is_continued(self) -> bool:
        """Whether it is a fine-tuned model itself."""
        return self.name != self.root


class RuntimeRef(Stored):
    """Where the training pods get their software."""

    name: str = Field(max_length=63)
    trainer_image: str = Field(max_length=1024)
    prepare_image: str = Field(max_length=1024)
    accelerator: Literal["nvidia", "cpu"]
    gpu_memory_gib: float | None = None


class RunRef(Stored):
    """Whose work it is."""

    namespace: str
    name: str
    uid: str
    output: str  # the prefix before <namespace>/<name>-<uid8>

    @property
    def layout(self) -> RunLayout:
        return RunLayout.of(self.output, self.namespace, self.name, self.uid)


class RequestedHyperparameters(Stored):
    """What the user set; None: to be resolved."""

    n_epochs: int = 4
    batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    prompt_loss_weight: float = 0.1
    learning_rate: float | None = None
    warmup_ratio: float | None = None
    weight_decay: float | None = None
    lr_schedule: LrSchedule | None = None
    max_sequence_length: int | None = None
    seed: int | None = None


class MethodRef(Stored):
    """All weights, or a LoRA adapter on the named modules (None: all linear layers)."""

    type: Literal["full", "lora"] = "full"
    rank: int = 16
    alpha: float = 32
    dropout: float = 0
    targets: list[str] | None = None


class Classification(Stored):
    """Which classification metrics are wanted; `positive_class` for two classes."""

    n_classes: int | None = None
    positive_class: str | None = None
    betas: list[float] = Field(default_factory=list)


Offload = Literal["none", "optimizer", "parameters"]


class RankResources(Stored):
    """The ranks that will train, and what each may use."""

    nodes: Annotated[int, Field(ge=1)] = 1
    processes_per_node: Annotated[int, Field(ge=1)] = 1  # one a GPU; 1 on CPU
    accelerator: Literal["nvidia", "cpu"] = "cpu"
    gpu_memory_gib: float | None = None  # None: unknown, nothing is estimated against it
    zero_stage: int | None = None  # None: to be chosen
    offload: Offload | None = None  # None: to be chosen

    @property
    def ranks(self) -> int:
        return self.nodes * self.processes_per_node


class PrepareTask(Stored):
    """Check the data, count tokens, resolve hyperparameters, write the tokenized dataset."""

    run: RunRef
    base: BaseModelRef
    training_file: str
    validation_file: str | None = None
    hyperparameters: RequestedHyperparameters = RequestedHyperparameters()
    rules: HyperparameterRules = HyperparameterRules()
    limits: DataLimits = DataLimits()
    data_tolerance: float = 0
    method: MethodRef = MethodRef()
    classification: Classification | None = None
    workers: RankResources = RankResources()


class DeletionTask(Stored):
    """Delete the files of a Model, as its manifest lists them."""

    namespace: str  # of the Model: its files are below it
    model: str  # the id, for messages
    uri: str
    manifest_sha256: str | None = None
    fine_tune: str | None = None  # the name of what made it
    fine_tune_uid: str | None = None


class TrainTask(Stored):
    """One attempt: every pod of the gang gets the same value."""

    run: RunRef
    attempt: int
    base: BaseModelRef
    dataset: str  # s3://..., made by the prepare Job
    organization: str
    suffix: str | None = None
    hyperparameters: ResolvedHyperparameters
    training_examples: int
    validation_examples: int = 0
    training_file: str
    validation_file: str | None = None
    method: MethodRef = MethodRef()
    classification: Classification | None = None
    nodes: int
    processes_per_node: int  # one a GPU; 1 on CPU
    accelerator: Literal["nvidia", "cpu"]
    zero_stage: int = 1
    offload: Offload = "none"
    packing: bool = True  # examples behind each other in a row, where the model allows it
    checkpoint_seconds: float = 600  # between two checkpoints within an epoch
    # Of the tokens that a micro-batch may hold: 1, 0.5, 0.25, ...; halved when memory ran out.
    micro_batch_share: Annotated[float, Field(gt=0, le=1)] = 1
    master_host: str  # pod 0's DNS name
    master_port: int
    progress_port: int
