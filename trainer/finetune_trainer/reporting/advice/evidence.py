"""The evidence for the advice: a few numbers from the curves and counts of a run."""

import math
from dataclasses import dataclass
from statistics import fmean, median

from finetune_api.hyperparameters import ResolvedHyperparameters
from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics
from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.reporting.metric_curves import Curves, Point
from finetune_trainer.reporting.report_data import ReportData

SPIKE = 2.0  # times the median of the steps before
SPIKE_RISE = 0.5  # nats above that median: variations of a tiny loss are no spikes
AROUND = 25  # number of steps before that are compared
SETTLING = 10  # number of steps after a spike that still belong to it
NOISE = 4.0  # median absolute deviations from the median; smaller differences are noise


@dataclass(frozen=True)
class Advice:
    """A recommendation, the numbers behind it, and the field of the FineTune to change."""

    title: str
    why: str
    change: str | None = None  # "hyperparameters.nEpochs: 2", or only the field


@dataclass(frozen=True)
class Spike:
    """A step whose loss is far above the steps before it."""

    step: int
    loss: float
    usual: float  # the median of the steps before


@dataclass(frozen=True)
class Evidence:
    """The input of the rules; None: not measured."""

    hyperparameters: ResolvedHyperparameters
    model_parameters: int | None  # of the base model; None: unknown
    is_classification: bool
    examples: int  # in an epoch
    distinct_examples: int  # without repeats
    validation_examples: int
    prompt_tokens: int
    completion_tokens: int
    steps: int  # completed
    planned_steps: int
    processes: int
    unit: str  # "GPUs" or "ranks"
    before: EpochMetrics | None  # of a continued model, before the first step
    epochs: list[EpochMetrics]
    training_accuracy: float | None  # of the last epoch
    validation_accuracy: float | None  # of the whole file, at the end
    accuracy_name: str
    spikes: list[Spike]
    lost_steps: list[int]  # with a loss or gradient norm of NaN or infinity
    first_loss: float | None  # mean over the first tenth of the steps, and over the last
    last_loss: float | None
    first_step_loss: float | None
    share_above_first: float  # share of the last epoch's steps with a loss above the first step's
    confusion: ConfusionMatrix | None
    classes: int | None
    unseen_classes: int  # classes of the validation file that the training file lacks

    @property
    def multiplier(self) -> float | None:
        return self.hyperparameters.learning_rate_multiplier


def gather(data: ReportData, curves: Curves) -> Evidence:
    """Collect the evidence: sequence accuracies for classes, token accuracies for other texts."""
    accuracy = "sequence_accuracy" if data.has_classes else "token_accuracy"
    losses = curves.finite("training_loss")
    tenth = max(1, len(losses) // 10)
    training = data.training
    first = losses[0].value if losses else None
    ends = [epoch.step for epoch in data.epochs]
    last_epoch_begin = ends[-2] if len(ends) > 1 else 0
    requested = data.dataset.source.classification
    classes = requested.n_classes if requested else None
    if classes is None:
        classes = data.dataset.classes
    if classes is None and data.confusion is not None:
        classes = data.confusion.classes
    return Evidence(
        hyperparameters=data.run.hyperparameters,
        model_parameters=data.parameters,
        is_classification=data.has_classes,
        examples=training.examples,
        distinct_examples=data.distinct_examples,
        validation_examples=data.validation.examples if data.validation else 0,
        prompt_tokens=training.prompt_tokens,
        completion_tokens=training.tokens - training.prompt_tokens,
        steps=curves.last_step,
        planned_steps=data.run.hyperparameters.steps(training.examples),
        processes=data.processes,
        unit="GPUs" if data.run.accelerator == "nvidia" else "ranks",
        before=data.before,
        epochs=data.epochs,
        training_accuracy=curves.mean_since(f"training_{accuracy}", last_epoch_begin),
        validation_accuracy=_validation_accuracy(data, curves, accuracy),
        accuracy_name=accuracy.replace("_", " "),
        spikes=find_spikes(losses),
        lost_steps=_lost(data, curves),
        first_loss=fmean(p.value for p in losses[:tenth]) if losses else None,
        last_loss=fmean(p.value for p in losses[-tenth:]) if losses else None,
        first_step_loss=first,
        share_above_first=_share_above(first, [p for p in losses if p.step > last_epoch_begin]),
        confusion=data.confusion,
        classes=classes,
        unseen_classes=_unseen(data),
    )


def find_spikes(losses: list[Point]) -> list[Spike]:
    """Find steps far above the median of the steps before, and far outside their spread."""
    spikes: list[Spike] = []
    for index in range(5, len(losses)):
        before = [point.value for point in losses[max(0, index - AROUND) : index]]
        value = losses[index].value
        if value < min(before) + SPIKE_RISE:  # saves two medians for nearly every step
            continue
        usual = median(before)
        spread = median(abs(other - usual) for other in before)
        limit = max(SPIKE * usual, usual + SPIKE_RISE, usual + NOISE * spread)
        if value > limit and not (spikes and losses[index].step <= spikes[-1].step + SETTLING):
            spikes.append(Spike(losses[index].step, value, usual))
    return spikes


def _share_above(first: float | None, losses: list[Point]) -> float:
    if first is None or not losses:
        return 0.0
    return sum(point.value > first for point in losses) / len(losses)


def _unseen(data: ReportData) -> int:
    """Classes of both files (in the matrix) minus those of the training file (in the dataset)."""
    if data.confusion is None or data.dataset.classes is None:
        return 0
    return max(0, data.confusion.classes - data.dataset.classes)


def _lost(data: ReportData, curves: Curves) -> list[int]:
    if data.failure is not None and data.failure.code == Reason.NAN_LOSS:
        return [curves.last_step + 1]  # the trainer writes no row for such a step
    points = [*curves.points("training_loss"), *curves.points("gradient_norm")]
    return sorted({point.step for point in points if not math.isfinite(point.value)})


def _validation_accuracy(data: ReportData, curves: Curves, accuracy: str) -> float | None:
    """The accuracy among all classes if it was measured, else that of the last epoch."""
    if (found := curves.last("classification/accuracy")) is not None:
        return found
    last = data.epochs[-1] if data.epochs else None
    value: float | None = getattr(last, f"validation_{accuracy}", None)
    return value if value is not None else curves.last(f"validation_{accuracy}")
