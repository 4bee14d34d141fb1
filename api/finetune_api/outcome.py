"""What a pod leaves behind: its termination message, at most 4,000 bytes of UTF-8 JSON."""

import json
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.names import TERMINATION_MESSAGE_BYTES
from finetune_api.tasks import Offload
from finetune_api.wire import Stored, Wire

TEXT_BYTES = 1000  # of a sentence
ITEM_BYTES = 400  # of a log line or a finding
DIVERGED_NATS = 0.5  # one batch differs from the mean of an epoch by less


class Failure(Stored):
    """Why the pod gave up."""

    code: str  # names.Reason
    message: str  # one plain sentence: what, where, what to do
    param: str | None = None  # the spec field, "trainingFile"
    hint: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    lines: list[str] | None = None  # the first 20 findings, "line 17, column 3: ..."
    log: list[str] | None = None  # the last lines


class Prepared(Stored):
    """What the prepare Job found."""

    training_examples: int
    validation_examples: int = 0
    training_tokens: int  # of one epoch: prompt, completion and end-of-sequence tokens
    skipped_lines: int = 0
    steps: int
    hyperparameters: ResolvedHyperparameters
    dataset: str  # s3://..., content-addressed: equal inputs share it
    zero_stage: int | None = None
    offload: Offload | None = None
    memory_per_rank_gib: float | None = None  # estimated peak of one GPU, or of one CPU rank
    advice: list[str] | None = None  # sentences that become events, never an error


class Deleted(Stored):
    """What is gone from S3."""

    files: int  # 0: there was no manifest any more
    size: int = 0  # bytes


class EpochMetrics(Stored):
    """At the end of an epoch."""

    epoch: int
    step: int
    training_loss: float | None = None
    validation_loss: float | None = None
    validation_sequence_accuracy: float | None = None
    validation_token_accuracy: float | None = None
    learning_rate: float | None = None


class Trained(Stored):
    """What rank 0 did."""

    fine_tuned_model: str
    model_uri: str
    model_manifest_sha256: str
    result_files: list[str]
    trained_tokens: int
    steps: int
    training_loss: float | None = None
    first_loss: float | None = None  # of the first step
    before: EpochMetrics | None = None  # of the model that it continued from, epoch 0
    epochs: list[EpochMetrics] | None = None  # the last ones that fit

    @property
    def has_diverged(self) -> bool:
        """The last epoch's loss is above the first step's by more than batches differ."""
        first, last = self.first_loss, self.training_loss
        return first is not None and last is not None and last > first + DIVERGED_NATS


class Outcome(Stored):
    """Exactly one of the four ends is set."""

    kind: Literal["outcome"] = "outcome"
    failure: Failure | None = None
    prepared: Prepared | None = None
    trained: Trained | None = None
    deleted: Deleted | None = None
    resumed_from_step: int | None = None  # of a training that went on from a checkpoint

    def to_termination_message(self) -> str:
        """JSON of at most 4,000 bytes of UTF-8; entries are dropped whole, never cut in two."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for part in value.values():
            if isinstance(part, dict):
                _shorten(part)
        lists = [
            (part, key)
            for part in value.values()
            if isinstance(part, dict)
            for key in ("log", "epochs", "lines", "advice")
            if key in part
        ]
        while (
            len(text := json.dumps(value, ensure_ascii=False).encode()) > TERMINATION_MESSAGE_BYTES
        ):
            part, key = next(((p, k) for p, k in lists if p[k]), (None, ""))
            if part is None:
                break
            # the oldest log line and epoch, the last finding
            del part[key][0 if key in {"log", "epochs"} else -1]
        return text.decode()

    @classmethod
    def parse(cls, text: str | None) -> "Outcome | None":
        """None for anything that is not an outcome: a log's tail, an empty message."""
        try:
            value = json.loads(text or "")
            return cls.model_validate(value) if value.get("kind") == "outcome" else None
        except (ValueError, AttributeError):
            return None


def _shorten(part: dict[str, object]) -> None:
    for key, value in part.items():
        if isinstance(value, str):
            part[key] = _cut(value, TEXT_BYTES)
        elif isinstance(value, list):
            part[key] = [
                _cut(item, ITEM_BYTES) if isinstance(item, str) else item for item in value
            ]


def _cut(text: str, limit: int) -> str:
    """At most so many bytes as JSON, an ellipsis where something went; no lone surrogates."""
    text = text.encode("utf-8", "replace").decode()
    if _size(text) <= limit:
        return text
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) + 3 <= limit else (low, middle - 1)
    return text[:low] + "…"


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


class ProgressReport(Wire):
    """GET /progress of rank 0. HTTP 200 once training can start, 503 while the pod gets ready."""

    stage: Literal["starting", "training", "evaluating", "publishing"]
    detail: str = ""  # "downloading the base model: 34 %"
    attempt: int
    step: int = 0  # optimizer steps done
    steps: int = 0
    epoch: float = 0  # 1.5: half of the second epoch is done
    epochs: int = 0
    trained_tokens: int = 0
    training_loss: float | None = None
    validation_loss: float | None = None
    validation_sequence_accuracy: float | None = None
    validation_token_accuracy: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    last_step_age: Annotated[float, Field(ge=0)] = 0  # seconds since the last finished step
    resumed_from_step: int | None = None
    checkpoint_step: int | None = None  # the last complete checkpoint
    before: EpochMetrics | None = None  # of the model that it continues from, epoch 0
    completed_epochs: list[EpochMetrics] = Field(default_factory=list)
