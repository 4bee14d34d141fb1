"""Runs that diverged, and runs that only seem to."""

from typing import Any

from finetune_trainer.reporting.report_data import ReportData
from tests.trainer.reporting import support
from tests.trainer.reporting.test_advice import advice_on, no_validation, used


def diverged(**changes: Any) -> ReportData:
    """A run with the mean losses of a real one at a learning rate of 1."""
    means = [51.2, 176.2, 122.7, 88.8, 47.67, 20.88]
    steps = {1: {"training_loss": 8.2}}
    for step in range(2, 121):
        steps[step] = {"training_loss": means[(step - 1) // 20] * (1 + 0.01 * (step % 3))}
    same = {"training_token_accuracy": 0.1, "training_sequence_accuracy": 0.0}
    values = {step: {**same, **cells} for step, cells in steps.items()}
    return used(n_epochs=6, learning_rate=1.0, learning_rate_multiplier=None).replace(
        results=support.results(120, epochs=6, changes=values),
        epochs=support.epoch_metrics(120, means, [None] * 6),
        **changes,
    )


def test_a_run_that_diverged_gets_a_tenth_of_the_rate_and_no_advice_on_epochs() -> None:
    found = advice_on(diverged())
    assert found[0].change == "hyperparameters.learningRate: 0.1"
    assert (
        "diverged: the training loss was 8.2 at the first step and 20.88 in the last"
        in found[0].why
    )
    assert not [advice for advice in found if "nEpochs" in (advice.change or "")]
    assert not [
        advice for advice in advice_on(no_validation(diverged())) if "nEpochs" in str(advice)
    ]


def test_a_run_with_a_constant_loss_has_not_diverged() -> None:
    """With a very low rate, the mean of the last epoch can be slightly above the first step."""
    changes = {step: {"training_loss": 2.0 + 0.01 * (step % 3)} for step in range(1, 1001)}
    data = used(learning_rate_multiplier=0.001).replace(
        results=support.results(1000, changes=changes),
        epochs=support.epoch_metrics(1000, [2.01] * 4, [2.0] * 4),
    )
    found = {advice.title for advice in advice_on(data)}
    assert "Use a learning rate multiplier in the recommended range" in found
    assert "Lower the learning rate" not in found


def test_a_first_step_that_was_easy_by_chance_is_no_divergence() -> None:
    """With batches of one example, some losses are far below the others."""
    changes = {1: {"training_loss": 0.3}}
    changes |= {n: {"training_loss": 0.1 if n % 2 else 1.2} for n in range(751, 1001)}
    data = support.report(
        results=support.results(1000, changes=changes),
        epochs=support.epoch_metrics(1000, [2.2, 1.2, 0.85, 0.65], [1.6, 1.1, 0.95, 0.94]),
    )
    assert not [advice for advice in advice_on(data) if "diverged" in advice.why]
