"""The status of a FineTune, as users read it."""

from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.tasks import BaseModelRef, Offload, RuntimeRef
from finetune_api.wire import Stored


class Condition(Stored):
    """metav1.Condition."""

    type: str = Field(max_length=316)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=1024)
    message: str = Field("", max_length=4096)
    last_transition_time: str = Field(max_length=64)
    observed_generation: int | None = None


class Progress(Stored):
    """Where the training stands; `percent` and `eta` are the printed columns."""

    step: int = 0
    steps: int = 0
    epoch: float = 0
    percent: str = Field("", max_length=16)
    loss: float | None = None  # training, weighted objective
    validation_loss: float | None = None
    validation_sequence_accuracy: float | None = None
    validation_token_accuracy: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    eta: str | None = Field(None, max_length=64)
    detail: str | None = Field(None, max_length=512)
    updated_at: str | None = Field(None, max_length=64)


class Attempt(Stored):
    """One gang of pods, and what ended it."""

    number: int
    started_at: str = Field(max_length=64)
    ended_at: str | None = Field(None, max_length=64)
    reason: str | None = Field(None, max_length=128)
    message: str | None = Field(None, max_length=1024)
    hint: str | None = Field(None, max_length=1024)
    counted: bool | None = None
    rank: int | None = None
    node: str | None = Field(None, max_length=253)
    exit_code: int | None = None
    log: list[Annotated[str, Field(max_length=512)]] | None = Field(None, max_length=20)
    resumed_from_step: int | None = None
    micro_batch_share: float | None = None  # left out: 1, all that a micro-batch may hold


class ErrorInfo(Stored):
    """Why it failed, in words that say what to do."""

    code: str = Field(max_length=128)
    message: str = Field(max_length=2048)
    param: str | None = Field(None, max_length=256)
    hint: str | None = Field(None, max_length=1024)
    rank: int | None = None
    node: str | None = Field(None, max_length=253)
    exit_code: int | None = None
    lines: list[Annotated[str, Field(max_length=512)]] | None = Field(None, max_length=20)
    log: list[Annotated[str, Field(max_length=512)]] | None = Field(None, max_length=20)


class EventEntry(Stored):
    """One Event of a FineTune. The status keeps it after the Kubernetes Event has expired.

    `reason`, `attempt`, and `key` identify an Event: the operator records each combination once.
    """

    at: str = Field(max_length=64, description="Time of the Event, RFC 3339.")
    level: Literal["info", "warning", "error"] = Field("info", description="Severity of the Event.")
    reason: str = Field(
        max_length=128, description="Machine-readable reason, for example `EpochCompleted`."
    )
    message: str = Field(max_length=1024, description="Human-readable message.")
    attempt: int | None = Field(
        None, description="Number of the attempt that the Event is about, if it is about one."
    )
    key: str | None = Field(
        None,
        max_length=128,
        description="Distinguishes Events with the same reason, for example the epoch number of "
        "`EpochCompleted`.",
    )


class Resolved(Stored):
    """Frozen at the start: no later change of the chart touches this FineTune."""

    base: BaseModelRef
    runtime: RuntimeRef
    organization: str = Field(max_length=253)
    output: str = Field(max_length=1400)
    secret_name: str = Field(max_length=253)
    hyperparameters: ResolvedHyperparameters | None = None
    dataset: str | None = Field(None, max_length=1400)
    zero_stage: int | None = None
    offload: Offload | None = None
    memory_per_rank_gib: float | None = None
    training_examples: int | None = None
    validation_examples: int | None = None
    training_tokens: int | None = None
    steps: int | None = None


class FineTuneStatus(Stored):
    """What a person is told."""

    state: Literal["pending", "running", "succeeded", "failed", "cancelled"] | None = None
    stage: str | None = Field(None, max_length=32)
    reason: str | None = Field(None, max_length=128)
    message: str | None = Field(None, max_length=2048)
    observed_generation: int | None = None
    conditions: list[Condition] = Field(default_factory=list, max_length=16)
    fine_tuned_model: str | None = Field(None, max_length=256)
    model_uri: str | None = Field(None, max_length=1400)
    result_files: list[Annotated[str, Field(max_length=1400)]] | None = Field(None, max_length=16)
    resolved: Resolved | None = None
    progress: Progress | None = None
    trained_tokens: int | None = None
    gpu_seconds: float | None = None
    attempts: list[Attempt] = Field(default_factory=list, max_length=256)
    error: ErrorInfo | None = None
    events: list[EventEntry] = Field(default_factory=list, max_length=64)
    started_at: str | None = Field(None, max_length=64)
    finished_at: str | None = Field(None, max_length=64)
