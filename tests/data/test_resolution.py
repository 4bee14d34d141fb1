"""The hyperparameters that the user did not set."""

from __future__ import annotations

import pytest

from finetune_api.hyperparameters import (
    HyperparameterRules,
    MultiplierStep,
    RequestedHyperparameters,
)
from finetune_data.prepare.hyperparameters import (
    Resolution,
    resolve_context,
    resolve_hyperparameters,
)
from tests.data.builders import base_model


def resolved(
    examples: int,
    trained: int | None = None,
    rules: HyperparameterRules | None = None,
    **requested: object,
) -> Resolution:
    return resolve_hyperparameters(
        RequestedHyperparameters.model_validate(requested),
        rules or HyperparameterRules(),
        base_model(trained_examples=trained),
        examples=examples,
        context=64,
    )


@pytest.mark.parametrize(
    ("examples", "batch_size", "multiplier"),
    [
        (1, 1, 0.05),
        (749, 1, 0.05),
        (1_000, 2, 0.05),
        (7_000, 14, 0.05),
        (8_000, 16, 0.1),
        (31_000, 62, 0.1),
        (32_000, 64, 0.2),
        (128_000, 256, 0.2),
        (10_000_000, 256, 0.2),
    ],
)
def test_batch_size_and_multiplier_follow_the_number_of_examples(
    examples: int, batch_size: int, multiplier: float
) -> None:
    found, advice = resolved(examples)
    assert (found.batch_size, found.learning_rate_multiplier) == (batch_size, multiplier)
    assert found.learning_rate == pytest.approx(multiplier * 1e-4)
    assert advice == []


def test_the_thresholds_of_the_chart_take_precedence() -> None:
    rules = HyperparameterRules(
        batch_size_share=0.1,
        batch_size_maximum=8,
        learning_rate_multipliers=(
            MultiplierStep(batch_size_from=8, value=0.7),
            MultiplierStep(batch_size_from=1, value=0.3),
        ),
    )
    assert resolved(40, rules=rules).hyperparameters.learning_rate_multiplier == 0.3
    assert resolved(4000, rules=rules).hyperparameters.learning_rate_multiplier == 0.7


def test_settings_of_the_user_are_used() -> None:
    found, advice = resolved(
        10_000,
        nEpochs=2,
        batchSize=32,
        learningRateMultiplier=0.15,
        promptLossWeight=0,
        warmupRatio=0,
        weightDecay=0,
        lrSchedule="constant",
        seed=0,
    )
    assert found.to_dict() == {
        "nEpochs": 2,
        "batchSize": 32,
        "learningRateMultiplier": 0.15,
        "learningRate": pytest.approx(1.5e-5),
        "promptLossWeight": 0,
        "warmupRatio": 0,
        "weightDecay": 0,
        "lrSchedule": "constant",
        "maxSequenceLength": 64,
        "seed": 0,
    }
    assert advice == []


def test_the_same_request_gives_the_same_everything() -> None:
    found = resolved(100).hyperparameters
    assert found == resolved(100).hyperparameters
    assert (found.n_epochs, found.prompt_loss_weight) == (4, 0.1)
    assert (found.warmup_ratio, found.weight_decay) == (0.1, 0.01)
    assert (found.lr_schedule, found.seed) == ("cosine", 42)


def test_an_absolute_learning_rate_needs_no_multiplier() -> None:
    found, advice = resolved(100, trained=5000, learningRate=3e-5)
    assert (found.learning_rate, found.learning_rate_multiplier) == (3e-5, None)
    assert advice == []
    _, advice = resolved(100, learningRate=3e-5, learningRateMultiplier=0.1)
    assert advice == ["learningRate is set, so learningRateMultiplier is not used."]


@pytest.mark.parametrize(
    ("examples", "trained", "reduced"),
    [(99, 1000, True), (100, 1000, False), (1000, 1000, False), (1, None, False), (0, 0, False)],
)
def test_a_small_file_on_a_fine_tuned_model_uses_a_third(
    examples: int, trained: int | None, reduced: bool
) -> None:
    found, advice = resolved(examples, trained)
    assert found.learning_rate_multiplier == pytest.approx(0.05 / 3 if reduced else 0.05)
    assert bool(advice) == reduced
    if reduced:
        assert "1,000 examples" in advice[0]
        assert "0.0167, a third of 0.05" in advice[0]


def test_a_multiplier_of_the_user_is_not_reduced() -> None:
    found, _ = resolved(10, 1000, learningRateMultiplier=0.1)
    assert found.learning_rate_multiplier == 0.1


def test_advice_is_given_and_nothing_is_changed() -> None:
    found, advice = resolved(100, batchSize=10, learningRateMultiplier=2)
    assert (found.batch_size, found.learning_rate_multiplier) == (10, 2)
    assert len(advice) == 2


@pytest.mark.parametrize(
    ("requested", "positions", "length", "sentences"),
    [
        (None, None, 64, 0),
        (None, 128, 64, 0),
        (None, 32, 32, 1),
        (16, None, 16, 0),
        (16, 32, 16, 1),
        (100, None, 64, 1),
        (100, 32, 32, 2),
    ],
)
def test_the_context_is_the_smallest_of_all(
    requested: int | None, positions: int | None, length: int, sentences: int
) -> None:
    context = resolve_context(requested, base_model(), positions)
    assert context.length == length
    assert len(context.advice) == sentences


def test_the_schema_documents_the_defaults_that_are_used() -> None:
    used = resolved(100).hyperparameters
    for name in ("warmup_ratio", "weight_decay", "lr_schedule", "seed"):
        description = RequestedHyperparameters.model_fields[name].description or ""
        assert description.endswith(f"Default: {getattr(used, name)}."), name
