"""What the operator tells a pod: one JSON value in the environment variable FINETUNE_TASK."""

from typing import Literal

from pydantic import Field

from finetune_api.hyperparameters import HyperparameterRules, LrSchedule, ResolvedHyperparameters
from finetune_api.layout import RunLayout
from finetune_api.wire import Stored


class BaseModelRef(Stored):
    """The model that training starts from."""

    name: str = Field(max_length=253)  # as the user wrote it
    root: str = Field(max_length=253)  # the catalogue name at the bottom of the chain
    uri: str = Field(max_length=1400)  # s3://... or hf://org/name@revision
    pretraining_learning_rate: float
    context_length: int
    trained_examples: int | None = None  # of the fine-tune it came from, when it is one


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


class DataLimits(Stored):
    """What a file may be before it is refused."""

    max_file_bytes: int = 157_286_400  # 150 MiB, after decompression too
    max_line_bytes: int = 1_048_576
    max_nesting: int = 64


class PrepareTask(Stored):
    """Check the data, count tokens, resolve hyperparameters, write the tokenised dataset."""

    run: RunRef
    base: BaseModelRef
    training_file: str
    validation_file: str | None = None
    hyperparameters: RequestedHyperparameters = RequestedHyperparameters()
    rules: HyperparameterRules = HyperparameterRules()
    limits: DataLimits = DataLimits()
    data_tolerance: float = 0


class TrainTask(Stored):
    """One attempt: every pod of the gang gets the same value."""

    run: RunRef
    attempt: int
    base: BaseModelRef
    organization: str
    suffix: str | None = None
    hyperparameters: ResolvedHyperparameters
    training_examples: int
    validation_examples: int = 0
    training_file: str
    validation_file: str | None = None
    nodes: int
    processes_per_node: int  # one a GPU; 1 on CPU
    accelerator: Literal["nvidia", "cpu"]
    zero_stage: int = 1
    offload: Literal["none", "optimizer", "parameters"] = "none"
    master_host: str  # pod 0's DNS name
    master_port: int
    progress_port: int
