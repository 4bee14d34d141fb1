"""The advice of OpenAI's fine-tuning guide appears on the runs that need it, and on no others."""

from collections.abc import Callable
from typing import Any

import pytest

from finetune_api.names import Reason
from finetune_api.outcome import EpochMetrics, Failure
from finetune_api.tasks import Classification
from finetune_data.tokenize.dataset import SplitCounts
from finetune_trainer.evaluation.confusion import ConfusionMatrix
from finetune_trainer.reporting.advice.evidence import Advice, find_spikes, gather
from finetune_trainer.reporting.advice.rules import advise
from finetune_trainer.reporting.metric_curves import Curves, Point
from finetune_trainer.reporting.report_data import ReportData
from tests.trainer.reporting import support

CLASSES = Classification(n_classes=2, positive_class=" yes")


def advice_on(data: ReportData) -> list[Advice]:
    return advise(gather(data, Curves.parse(data.results)))


def used(**changes: Any) -> ReportData:
    """A good run except for these hyperparameters."""
    run = support.run()
    return support.report(run=run.replace(hyperparameters=run.hyperparameters.replace(**changes)))


def counted(name: str = "train", **changes: Any) -> ReportData:
    """A good run except for the counts of a split."""
    whole = support.dataset()
    splits = {**whole.splits, name: whole.splits[name].replace(**changes)}
    return support.report(dataset=whole.replace(splits=splits))


def classified(data: ReportData, asked: Classification = CLASSES) -> ReportData:
    source = data.dataset.source.replace(classification=asked)
    return data.replace(dataset=data.dataset.replace(source=source))


def flat(accuracy: float) -> str:
    """results.csv with constant training accuracies."""
    same = {"training_token_accuracy": accuracy, "training_sequence_accuracy": accuracy}
    return support.results(1000, changes=dict.fromkeys(range(1, 1001), same))


def ended(*losses: tuple[float, float], accuracy: float) -> list[EpochMetrics]:
    """Epochs with training and validation loss, and the accuracy of the validation file."""
    epochs = support.epoch_metrics(1000, *zip(*losses, strict=True))
    return [epoch.replace(validation_token_accuracy=accuracy) for epoch in epochs]


def losses(*validation: float) -> ReportData:
    epochs = support.epoch_metrics(1000, [1.0] * len(validation), validation)
    return support.report(epochs=epochs)


def no_validation(data: ReportData) -> ReportData:
    epochs = [epoch.replace(validation_loss=None) for epoch in data.epochs]
    epochs = [epoch.replace(validation_token_accuracy=None) for epoch in epochs]
    return data.replace(dataset=support.without_validation(), epochs=epochs)


def confused(counts: list[list[int]], accuracy: float, parameters: int | None = None) -> ReportData:
    changes = {1000: {"classification/accuracy": accuracy}}
    text = support.results(1000, asked=CLASSES, changes=changes)
    return classified(
        support.report(
            parameters=parameters,
            results=text,
            confusion=ConfusionMatrix(labels=[" no", " yes"], counts=counts),
        )
    )


SPIKE = {600: {"training_loss": 9.0}}

# the run, the title of the advice, the numbers in it, the field to change
CASES: dict[str, tuple[Callable[[], ReportData], str, tuple[str, ...], str | None]] = {
    "NaN": (
        lambda: support.report(
            results=support.results(1000, changes={40: {"gradient_norm": float("nan")}})
        ),
        "Lower the learning rate",
        ("step 40",),
        "hyperparameters.learningRateMultiplier: 0.01",
    ),
    "a run that NaN has ended": (
        lambda: support.report(
            results=support.results(39), failure=Failure(code=Reason.NAN_LOSS, message="NaN")
        ),
        "Lower the learning rate",
        ("step 40",),
        "hyperparameters.learningRateMultiplier: 0.01",
    ),
    "a loss that grows": (
        lambda: support.report(
            results=support.results(
                1000, changes={n: {"training_loss": 2 + n / 500} for n in range(1, 1001)}
            )
        ),
        "Lower the learning rate",
        ("The training diverged", "2.101", "3.901"),
        "hyperparameters.learningRateMultiplier: 0.01",
    ),
    "a spike": (
        lambda: support.report(results=support.results(1000, changes=SPIKE)),
        "Lower the learning rate",
        ("at step 600: 9",),
        "hyperparameters.learningRateMultiplier: 0.05",
    ),
    "a spike at an absolute rate": (
        lambda: used(learning_rate=1e-4, learning_rate_multiplier=None).replace(
            results=support.results(1000, changes=SPIKE)
        ),
        "Lower the learning rate",
        ("at step 600",),
        "hyperparameters.learningRate: 5e-5",
    ),
    "a continued model that forgets": (
        lambda: losses(1.3, 1.2, 1.1, 1.1).replace(
            before=EpochMetrics(epoch=0, step=0, validation_loss=1.0)
        ),
        "Keep the previous model, or add examples from its training",
        ("was 1 before the first step and is 1.1 now",),
        "hyperparameters.learningRateMultiplier: 0.05",
    ),
    "a validation loss that rose": (
        lambda: losses(1.1, 0.95, 1.0, 1.2),
        "Train fewer epochs",
        ("after epoch 2 (0.95)", "1.2 after epoch 4"),
        "hyperparameters.nEpochs: 2",
    ),
    "high training accuracy with low validation accuracy": (
        lambda: support.report(results=flat(0.99)),
        "Train fewer epochs",
        ("token accuracy is 99.0%", "80.0% on the validation"),
        "hyperparameters.nEpochs: 2",
    ),
    "the same after one epoch": (
        lambda: used(n_epochs=1).replace(
            results=flat(0.99), epochs=support.epoch_metrics(1000, [1.0], [1.0])
        ),
        "Add training examples",
        ("99.0%", "80.0%"),
        None,
    ),
    "low training accuracy while the loss falls": (
        lambda: support.report(
            results=flat(0.3), epochs=ended((2.0, 1.8), (1.5, 1.4), accuracy=0.28)
        ),
        "Train more epochs",
        ("30.0%", "validation loss from 1.8 to 1.4"),
        "hyperparameters.nEpochs: 8",
    ),
    "one epoch with low accuracy": (
        lambda: used(n_epochs=1).replace(
            results=flat(0.3), epochs=ended((2.0, 1.8), accuracy=0.28)
        ),
        "Train more epochs",
        ("30.0%",),
        "hyperparameters.nEpochs: 2",
    ),
    "low training accuracy with a constant loss": (
        lambda: used(learning_rate_multiplier=0.05).replace(
            results=flat(0.3), epochs=ended((2.0, 1.8), (2.0, 1.8), accuracy=0.28)
        ),
        "Raise the learning rate",
        ("30.0%", "0.05 and a batch size of 8"),
        "hyperparameters.learningRateMultiplier: 0.1",
    ),
    "a multiplier above the recommended range": (
        lambda: used(learning_rate_multiplier=1.5),
        "Use a learning rate multiplier in the recommended range",
        ("1.5", "0.02 to 0.2"),
        "hyperparameters.learningRateMultiplier: 0.2",
    ),
    "a multiplier below it": (
        lambda: used(learning_rate_multiplier=0.001),
        "Use a learning rate multiplier in the recommended range",
        ("0.001",),
        "hyperparameters.learningRateMultiplier: 0.02",
    ),
    "many epochs without a validation file": (
        lambda: no_validation(used(n_epochs=12)),
        "Train fewer epochs",
        ("12 epochs",),
        "hyperparameters.nEpochs: 2",
    ),
    "a large batch": (
        lambda: used(batch_size=256),
        "Use a smaller batch size",
        ("12.8% of the 2,000",),
        "hyperparameters.batchSize: 80",
    ),
    "a small batch": (
        lambda: counted(examples=500_000),
        "Use a larger batch size",
        ("0.0016% of the 500,000",),
        "hyperparameters.batchSize: 256",
    ),
    "few steps": (
        lambda: used(batch_size=80, n_epochs=1),
        "Use a smaller batch size",
        ("25 optimizer steps of 80",),
        "hyperparameters.batchSize: 33",
    ),
    "long prompts with short completions": (
        lambda: counted(tokens=203_000, prompt_tokens=200_000),
        "Lower the prompt loss weight",
        ("67 times", "87% of the loss"),
        "hyperparameters.promptLossWeight: 0.01",
    ),
    "few examples": (
        lambda: counted(examples=300),
        "Add training examples",
        ("300 examples", "500"),
        None,
    ),
    "few examples a class": (
        lambda: classified(counted(examples=150)),
        "Add training examples",
        ("150 examples for 2 classes", "100 per class"),
        None,
    ),
    "no validation file": (
        lambda: no_validation(support.report()),
        "Add a validation file",
        (),
        "validationFile",
    ),
    "a tiny validation file": (
        lambda: counted("validation", examples=16),
        "Use a larger validation file",
        ("16 examples", "off by 25 percentage points"),
        "validationFile",
    ),
    "idle GPUs": (
        lambda: support.report(
            run=support.run(nodes=2, processes_per_node=8, accelerator="nvidia")
        ),
        "Request fewer GPUs",
        ("8 of 16 GPUs",),
        "resources",
    ),
    "always the same class": (
        lambda: confused([[90, 0], [10, 0]], 0.9),
        "Balance the classes",
        ("accuracy is 90.0%", "reach 90.0%"),
        None,
    ),
    "no better than a coin": (
        lambda: confused([[26, 28], [20, 26]], 0.52),
        "Check the prompts and labels",
        ("accuracy is 52.0%", "reach 54.0%"),
        None,
    ),
    "two classes that are confused": (
        lambda: confused([[50, 2], [14, 34]], 0.84),
        "Add examples of two classes",
        ("predicted “no” for 14 of 48 examples of “yes”",),
        None,
    ),
    "classes with a large model": (
        lambda: confused([[50, 1], [1, 48]], 0.98, parameters=6_740_000_000),
        "Try a smaller base model",
        ("98.0% with a base model of about 6.7 billion parameters",),
        "model",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_gets_the_right_advice(name: str) -> None:
    make, title, numbers, change = CASES[name]
    found = {advice.title: advice for advice in advice_on(make())}
    assert title in found, list(found)
    assert found[title].change == change
    for number in numbers:
        assert number in found[title].why


def test_a_run_that_went_well_gets_none() -> None:
    assert advice_on(support.report()) == []
    assert advice_on(confused([[50, 1], [1, 48]], 0.98)) == []
    assert advice_on(confused([[50, 1], [1, 48]], 0.98, parameters=350_000_000)) == []


def test_a_run_without_a_step_gets_no_advice_on_curves() -> None:
    data = support.report(results="step,training_loss\n", epochs=[])
    assert advice_on(data) == []


UNSEEN = ConfusionMatrix(labels=["a", "b", "c"], counts=[[40, 1, 0], [0, 40, 0], [9, 3, 0]])


@pytest.mark.parametrize(("classes", "is_unseen"), [(2, True), (3, False), (None, False)])
def test_a_class_that_the_training_file_lacks_is_named(
    classes: int | None, is_unseen: bool
) -> None:
    whole = support.dataset(data_kind="classification", classes=classes)
    found = {a.title: a for a in advice_on(support.report(dataset=whole, confusion=UNSEEN))}
    assert ("Add examples of every class" in found) == is_unseen
    if is_unseen:
        why = found["Add examples of every class"].why
        assert "has 1 class without an example in the training file: “c”." in why


def test_there_is_one_advice_for_each_field() -> None:
    data = no_validation(used(n_epochs=12, learning_rate_multiplier=3.0)).replace(
        results=support.results(1000, changes=SPIKE)
    )
    found = advice_on(data)
    fields = [advice.change.partition(":")[0] for advice in found if advice.change]
    assert len(fields) == len(set(fields))
    assert found[0].change == "hyperparameters.learningRateMultiplier: 1.5"


def test_a_noisy_validation_loss_is_no_overfitting() -> None:
    assert "Train fewer epochs" not in {a.title for a in advice_on(losses(1.1, 1.0, 0.99, 1.0))}


def test_overfitting_gets_no_advice_to_raise_the_rate() -> None:
    epochs = ended((2.0, 1.8), (1.5, 1.9), accuracy=0.28)
    found = [advice.title for advice in advice_on(support.report(results=flat(0.3), epochs=epochs))]
    assert found == ["Train fewer epochs"]


def test_noise_and_a_falling_loss_are_no_spikes() -> None:
    for seed in range(5):
        curves = Curves.parse(support.results(2000, seed=seed))
        assert find_spikes(curves.finite("training_loss")) == []
    small = [Point(step, 0.001 * (1 + step % 7)) for step in range(1, 200)]
    assert find_spikes(small) == []


def test_a_spike_that_takes_steps_to_settle_is_counted_once() -> None:
    changes = {600: {"training_loss": 9.0}, 601: {"training_loss": 7.0}, 603: {"training_loss": 6}}
    changes[800] = {"training_loss": 8.0}
    curves = Curves.parse(support.results(1000, changes=changes))
    assert [spike.step for spike in find_spikes(curves.finite("training_loss"))] == [600, 800]


def test_an_empty_split_causes_no_division_by_zero() -> None:
    empty = support.dataset(splits={"train": SplitCounts(examples=0, tokens=0)})
    assert isinstance(advice_on(support.report(dataset=empty)), list)


def test_a_perfect_accuracy_needs_no_more_epochs() -> None:
    epochs = ended((2.0, 1.8), (1.5, 1.4), accuracy=1.0)
    report = support.report(results=flat(1.0), epochs=epochs)
    report = report.replace(dataset=support.dataset(data_kind="classification", classes=3))
    found = advise(gather(report, Curves.parse(report.results)))
    assert "Train more epochs" not in {advice.title for advice in found}
    assert gather(report, Curves.parse(report.results)).classes == 3
