"""The outcome of a pod: its termination message, at most 4,000 bytes of UTF-8 JSON."""

import json
import re
from typing import Annotated, Literal

from pydantic import Field

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.names import TERMINATION_MESSAGE_BYTES
from finetune_api.tasks import ExhaustedMemory, FallbackPlan, Offload
from finetune_api.training_files import TrainingFileCounts
from finetune_api.wire import JsonObject, Stored, Wire, parse_json

# For a sentence: as much as fits. The first has room for the longest address of S3.
TEXT_BYTES = (2000, 1000, 500, 250, 60)
ITEM_BYTES = 400  # for a log line or a finding
# The parts of an outcome that may become shorter. All others are numbers, names, and addresses.
TEXTS = frozenset({"message", "hint"})
LINES = frozenset({"log", "lines", "advice"})
DROPPED = ("log", "epochs", "lines", "advice")  # in this order
_ADDRESS = re.compile(r"(?:s3|hf|https?)://\S+")
DIVERGED_NATS = 0.5  # the loss of a single batch differs less from the mean of an epoch

# Pods are not trusted: a value within these bounds breaks no decision, status write, or metric.
Count = Annotated[int, Field(ge=0, le=10**15)]  # exact as a float, which Prometheus uses
Measure = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]  # added to the present, it is still a date


class Failure(Stored):
    """The cause of a pod's failure."""

    code: str  # names.Reason
    message: str  # one sentence: what happened, and where
    param: str | None = None  # the field of the spec, such as "trainingFile"
    hint: str | None = None
    rank: int | None = None
    exit_code: int | None = None
    exhausted_memory: ExhaustedMemory | None = None  # with the code OutOfMemory
    lines: list[str] | None = None  # the first 20 findings, "line 17, column 3: ..."
    log: list[str] | None = None  # the last lines of the process's log


class Prepared(Stored):
    """The result of the prepare Job."""

    training_examples: Count  # in one epoch
    validation_examples: Count = 0
    training_files: list[TrainingFileCounts] | None = None  # in their order; None: only one file
    training_tokens: Count  # prompt, completion, and end-of-sequence tokens in one epoch
    skipped_lines: Count = 0
    steps: Count
    hyperparameters: ResolvedHyperparameters
    dataset: str  # s3://...; the key is a digest, so that equal inputs share the dataset
    base_revision: str | None = None  # of the base model; None: of an earlier version
    zero_stage: int | None = None
    offload: Offload | None = None
    memory_per_rank_gib: float | None = None  # estimated peak of one GPU, or of one CPU process
    memory_per_pod_gib: float | None = None  # estimated peak of a training pod's host memory
    storage_per_pod_gib: float | None = None  # estimated files of a training pod
    checkpoint_per_pod_gib: float | None = None  # a training pod's part of a checkpoint
    # for attempts after one that ran out of GPU memory with a quarter of the micro-batch
    fallbacks: list[FallbackPlan] | None = None
    advice: list[str] | None = None  # sentences that become Events and never an error


class Deleted(Stored):
    """The result of a deletion Job."""

    files: Count  # deleted from S3; 0 when there was no manifest
    size: Count = 0  # bytes


class EpochMetrics(Stored):
    """Metrics at the end of an epoch."""

    epoch: Count
    step: Count
    training_loss: float | None = None
    validation_loss: float | None = None
    validation_sequence_accuracy: float | None = None
    validation_token_accuracy: float | None = None
    learning_rate: float | None = None


class Trained(Stored):
    """The result of a training, from rank 0."""

    fine_tuned_model: str
    model_uri: str
    model_manifest_sha256: str
    result_files: list[str]
    trained_tokens: Count
    steps: Count
    training_loss: float | None = None
    first_loss: float | None = None  # the loss at the first step
    before: EpochMetrics | None = None  # metrics of the parent model, as epoch 0
    epochs: list[EpochMetrics] | None = None  # as many of the last ones as fit

    @property
    def has_diverged(self) -> bool:
        """Whether the loss of the last epoch is above that of the first step by DIVERGED_NATS."""
        first, last = self.first_loss, self.training_loss
        return first is not None and last is not None and last > first + DIVERGED_NATS


class Adopted(Stored):
    """A model that a former FineTune with the same name has trained in the same way.

    It has no address: the operator computes it from the UID.
    """

    uid: str  # of the former FineTune
    fine_tuned_model: str
    model_manifest_sha256: str
    trained_tokens: Count
    steps: Count
    training_loss: Measure | None = None
    first_loss: Measure | None = None
    before: EpochMetrics | None = None
    epochs: list[EpochMetrics] | None = None  # as many of the last ones as fit

    @classmethod
    def of(cls, uid: str, trained: Trained) -> "Adopted":
        """The result of a former training, without its addresses."""
        return cls(uid=uid, **{name: getattr(trained, name) for name in cls._figures()})

    def trained_at(self, model_uri: str, result_files: list[str]) -> Trained:
        """The result of the former training, at these addresses."""
        figures = {name: getattr(self, name) for name in self._figures()}
        return Trained(model_uri=model_uri, result_files=result_files, **figures)

    @classmethod
    def _figures(cls) -> set[str]:
        return cls.model_fields.keys() & Trained.model_fields.keys()


class Outcome(Stored):
    """The end of a pod. Exactly one of the four results is set; `adopted` comes with `prepared`."""

    kind: Literal["outcome"] = "outcome"
    failure: Failure | None = None
    prepared: Prepared | None = None
    adopted: Adopted | None = None
    trained: Trained | None = None
    deleted: Deleted | None = None
    resumed_from_step: Count | None = None  # when a training continued from a checkpoint

    def to_termination_message(self) -> str:
        """JSON of at most 4,000 bytes of UTF-8.

        Entries of lists are dropped until it fits, and then texts become shorter. Names and
        addresses are complete, also in texts: an address for which there is no room is left out.
        """
        for limit in TEXT_BYTES:
            text = self._shortened(limit)
            if len(text.encode()) <= TERMINATION_MESSAGE_BYTES:
                break
        return text

    def _shortened(self, limit: int) -> str:
        """JSON with texts of at most `limit` bytes, and with as many entries of lists as fit."""
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        lists: list[tuple[JsonObject, str]] = []
        for part in value.values():
            if isinstance(part, dict):
                for key, item in part.items():
                    part[key] = _clean(item)
                for key in TEXTS & part.keys():
                    part[key] = _cut(part[key], limit)
                for key in LINES & part.keys():
                    part[key] = [_cut(line, min(limit, ITEM_BYTES)) for line in part[key]]
                lists += [(part, key) for key in DROPPED if key in part]
        while len(text := json.dumps(value, ensure_ascii=False)) and (
            len(text.encode()) > TERMINATION_MESSAGE_BYTES
        ):
            part, key = next(((p, k) for p, k in lists if p[k]), ({}, ""))
            if not part:
                break
            # the oldest log line or epoch, or the last finding
            del part[key][0 if key in {"log", "epochs"} else -1]
        return text

    @classmethod
    def parse(cls, text: str | None) -> "Outcome | None":
        """None for a text that is not a valid outcome, such as the end of a log."""
        try:
            value = parse_json(text or "")
            return cls.model_validate(value) if value.get("kind") == "outcome" else None
        except (ValueError, AttributeError):
            return None


def _clean(value: object) -> object:
    """The value without lone surrogates, which UTF-8 does not have."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _cut(text: str, limit: int) -> str:
    """Shorten a text to `limit` bytes of JSON, with an ellipsis, and never within an address."""
    text = str(_clean(text))
    if _size(text) <= limit:
        return text
    low, high = 0, min(len(text), limit)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _size(text[:middle]) + 3 <= limit else (low, middle - 1)
    # at the end of an address, too: the ellipsis would look like a part of it
    split = next(
        (it.start() for it in _ADDRESS.finditer(text) if it.start() < low <= it.end()), low
    )
    return text[:split] + "…"


def _size(text: str) -> int:
    return len(json.dumps(text, ensure_ascii=False).encode())


class ProgressReport(Wire):
    """The response to GET /progress of rank 0.

    The HTTP status is 200 once the training can start, and 503 before.
    """

    stage: Literal["starting", "training", "evaluating", "publishing"]
    detail: str = ""  # "downloading the base model: 34 %"
    attempt: Count
    step: Count = 0  # completed optimizer steps
    steps: Count = 0
    epoch: Annotated[float, Field(ge=0, le=1e6)] = 0  # 1.5 is the middle of the second epoch
    epochs: Count = 0
    trained_tokens: Count = 0
    training_loss: Measure | None = None
    validation_loss: Measure | None = None
    validation_sequence_accuracy: Measure | None = None
    validation_token_accuracy: Measure | None = None
    learning_rate: Measure | None = None
    tokens_per_second: Measure | None = None
    seconds_left: Seconds | None = None
    last_step_age: Seconds = 0  # since the last completed step
    resumed_from_step: Count | None = None
    checkpoint_step: Count | None = None  # the last complete checkpoint
    before: EpochMetrics | None = None  # metrics of the parent model, as epoch 0
    completed_epochs: Annotated[list[EpochMetrics], Field(max_length=1000)] = Field(
        default_factory=list
    )
