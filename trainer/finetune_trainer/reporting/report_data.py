"""What a report is made of: values that the trainer, or whoever reads its files, puts together."""

from pydantic import Field

from finetune_api.outcome import EpochMetrics, Failure
from finetune_api.wire import Stored
from finetune_data.tokenize.dataset import TRAIN, VALIDATION, DatasetManifest, SplitCounts
from finetune_trainer.evaluation.class_metrics import PREFIX as CLASSIFICATION
from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.run_manifest import RunManifest


class Attempt(Stored):
    """One gang of pods, as its rank 0 saw it."""

    number: int
    from_step: int = 0  # of the checkpoint that it went on from
    to_step: int  # the last one that it did
    seconds: float  # from the first step's begin to the last one's end, evaluations included
    processes: int = 1  # ranks: GPUs, or processes on CPU
    ended: str | None = None  # why it was not the last one


class ThroughputPoint(Stored):
    """Tokens a second over the steps up to this one."""

    step: int
    tokens_per_second: float


class Sample(Stored):
    """A prompt, and what came of it; None: not generated."""

    prompt: str
    expected: str
    before: str | None = None
    after: str | None = None


class ReportData(Stored):
    """Everything that the page and the card tell."""

    run: RunManifest
    dataset: DatasetManifest
    results: str  # the text of results.csv
    name: str | None = None  # of the fine-tuned model; None where none was published
    published: str | None = None  # ISO 8601, UTC
    license: str | None = None  # of the base model, as its card says; None: unknown
    before: EpochMetrics | None = None  # the model that it continued from, on the same files
    epochs: list[EpochMetrics] = Field(default_factory=list)
    attempts: list[Attempt] = Field(default_factory=list)
    speeds: list[ThroughputPoint] = Field(default_factory=list)
    samples: list[Sample] = Field(default_factory=list)
    confusion: ConfusionMatrix | None = None  # of the whole validation file, after the last epoch
    failure: Failure | None = None

    @property
    def training(self) -> SplitCounts:
        return self.dataset.splits.get(TRAIN) or SplitCounts(examples=0, tokens=0)

    @property
    def validation(self) -> SplitCounts | None:
        """None for no validation file, and for one without an example."""
        found = self.dataset.splits.get(VALIDATION)
        return found if found and found.examples else None

    @property
    def has_classes(self) -> bool:
        """Whether completions are classes: as the FineTune or the data said, or as was measured."""
        header = self.results.partition("\n")[0]
        asked = self.dataset.source.classification is not None
        return asked or self.dataset.data_kind == "classification" or CLASSIFICATION in header

    @property
    def processes(self) -> int:
        return self.run.nodes * self.run.processes_per_node

    @property
    def process_seconds(self) -> float | None:
        """GPU seconds, or those of CPU ranks, over all attempts that are known."""
        if not self.attempts:
            return None
        return sum(attempt.seconds * attempt.processes for attempt in self.attempts)

    @property
    def title(self) -> str:
        return self.name or f"{self.run.run.namespace}/{self.run.run.name}"
