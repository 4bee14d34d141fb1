"""The content of a report, as plain values: from the running trainer or from the files of a run."""

from pydantic import Field

from finetune_api.outcome import EpochMetrics, Failure
from finetune_api.wire import Stored
from finetune_data.lookup.provenance import RunManifest
from finetune_data.tokenize.dataset import TRAIN, VALIDATION, DatasetManifest, SplitCounts
from finetune_trainer.evaluation.class_metrics import PREFIX as CLASSIFICATION
from finetune_trainer.evaluation.confusion import ConfusionMatrix


class Attempt(Stored):
    """One attempt, as its rank 0 recorded it."""

    number: int
    from_step: int = 0  # the checkpoint from which it continued
    to_step: int  # the last completed step
    seconds: float  # from the start of the first step to the end of the last, with evaluations
    processes: int = 1  # number of ranks: GPUs, or CPU processes
    ended: str | None = None  # the cause of its end; None if it completed the training


class ThroughputPoint(Stored):
    """Tokens per second over the steps since the previous point."""

    step: int
    tokens_per_second: float


class Sample(Stored):
    """A prompt with its expected and generated completions; None: not generated."""

    prompt: str
    expected: str
    before: str | None = None
    after: str | None = None


class ExampleSpan(Stored):
    """Consecutive tokens of an example. kind: context, learned, end, or omitted (no tokens)."""

    kind: str
    tokens: list[str] = Field(default_factory=list)  # the text of each
    count: int


class LearnedExample(Stored):
    """A training example as spans. context, learned: numbers of tokens."""

    context: int
    learned: int
    spans: list[ExampleSpan]


class ReportData(Stored):
    """Everything that the page and the card show."""

    run: RunManifest
    dataset: DatasetManifest
    results: str  # the text of results.csv
    name: str | None = None  # the name of the fine-tuned model; None if none was published
    published: str | None = None  # ISO 8601, UTC
    parameters: int | None = None  # of the base model, estimated from its config
    license: str | None = None  # the license that the base model's card names; None if unknown
    before: EpochMetrics | None = None  # metrics of a continued model before the first step
    epochs: list[EpochMetrics] = Field(default_factory=list)
    attempts: list[Attempt] = Field(default_factory=list)
    speeds: list[ThroughputPoint] = Field(default_factory=list)
    examples: list[LearnedExample] = Field(default_factory=list)  # the first of the training file
    samples: list[Sample] = Field(default_factory=list)
    # tokens at which completions were cut to save time; 0: none was generated
    samples_cut_before: int | None = None
    samples_cut_after: int | None = None
    confusion: ConfusionMatrix | None = None  # of the validation file, after the last epoch
    failure: Failure | None = None

    @property
    def training(self) -> SplitCounts:
        return self.dataset.splits.get(TRAIN) or SplitCounts(examples=0, tokens=0)

    @property
    def distinct_examples(self) -> int:
        """The number of training examples, each counted once if it is repeated in an epoch."""
        shares = self.dataset.training_files
        return sum(share.examples for share in shares) if shares else self.training.examples

    @property
    def validation(self) -> SplitCounts | None:
        """The counts of the validation file; None if there is no file or no example in it."""
        found = self.dataset.splits.get(VALIDATION)
        return found if found and found.examples else None

    @property
    def has_classes(self) -> bool:
        """Whether completions are classes, by the FineTune, the data, or the measured columns."""
        header = self.results.partition("\n")[0]
        is_requested = self.dataset.source.classification is not None
        return (
            is_requested or self.dataset.data_kind == "classification" or CLASSIFICATION in header
        )

    @property
    def processes(self) -> int:
        return self.run.nodes * self.run.processes_per_node

    @property
    def process_seconds(self) -> float | None:
        """GPU seconds (or CPU process seconds) over all recorded attempts."""
        if not self.attempts:
            return None
        return sum(attempt.seconds * attempt.processes for attempt in self.attempts)

    @property
    def samples_note(self) -> str:
        """Why completions are shorter than usual; empty if they are not."""
        cuts = (("before", self.samples_cut_before), ("after", self.samples_cut_after))
        parts = [
            f"those {time} the training " + (f"end after {cut} tokens" if cut else "are left out")
            for time, cut in cuts
            if cut is not None
        ]
        if not parts:
            return ""
        return f"To take at most 1 % of the run's time, {' and '.join(parts)}."

    @property
    def title(self) -> str:
        return self.name or f"{self.run.run.namespace}/{self.run.run.name}"
