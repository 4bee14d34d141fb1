"""Resolves the hyperparameters that the user left open. Pure: values in, values and advice out.

The defaults of the hyperparameters that OpenAI's fine-tunes API did not have, and their reasons:

- warmup_ratio 0.1: fine-tunes are short, and AdamW's second moments need some tens of steps to
  become meaningful. In a run of a few hundred steps, that is a tenth.
- weight_decay 0.01: AdamW's usual value. At fine-tuning rates (1e-5) it changes little; it keeps
  the weights from drifting in long runs on little data.
- lr_schedule cosine: it has no second parameter to choose, and its last steps are small.
- seed 42: running the same FineTune twice trains in the same order twice.
"""

from typing import Literal, NamedTuple

from finetune_api.hyperparameters import (
    HyperparameterRules,
    RequestedHyperparameters,
    ResolvedHyperparameters,
)
from finetune_api.tasks import BaseModelRef, RankResources
from finetune_data.tokenize.dataset import SplitCounts

DEFAULTS = {"warmup_ratio": 0.1, "weight_decay": 0.01, "lr_schedule": "cosine", "seed": 42}
TRIED_MULTIPLIERS = (0.02, 0.2)
LARGEST_BATCH_SHARE = 0.04  # of the examples

LORA_FACTOR = 10  # an adapter's best rate is about ten times that of all weights
EPOCHS_ADVISED = 4
LONG_PROMPTS = 10  # times the completion

# Continuing from a fine-tuned model with far less data than it saw.
SMALL_CONTINUATION = 0.1  # of the examples that the model was fine-tuned on
CONTINUATION_FACTOR = 1 / 3


class Resolution(NamedTuple):
    """Every hyperparameter as it is used, and advice as sentences, which is never an error."""

    hyperparameters: ResolvedHyperparameters
    advice: list[str]


class Context(NamedTuple):
    """The longest example, in tokens, and advice about it."""

    length: int
    advice: list[str]


def resolve_context(requested: int | None, base: BaseModelRef, positions: int | None) -> Context:
    """The user's maxSequenceLength, capped by the catalog and by the model's own config.

    positions: the limit in the model's config.json; None if it has none.
    """
    advice = []
    longest = base.context_length
    if positions is not None and positions < longest:
        advice.append(
            f"The catalog gives {base.name} a context of {longest:,} tokens, but its config.json "
            f"allows only {positions:,}: {positions:,} is used."
        )
        longest = positions
    if requested is not None and requested > longest:
        advice.append(
            f"maxSequenceLength {requested:,} is more than {longest:,}, the context length of "
            f"{base.name}: {longest:,} is used."
        )
    return Context(min(requested or longest, longest), advice)


def resolve_hyperparameters(
    requested: RequestedHyperparameters,
    rules: HyperparameterRules,
    base: BaseModelRef,
    *,
    examples: int,
    context: int,
    method: Literal["full", "lora"] = "full",
) -> Resolution:
    """Resolve all hyperparameters for a training file of `examples` examples."""
    advice: list[str] = []
    batch_size = requested.batch_size or rules.batch_size(examples)
    if requested.batch_size and requested.batch_size > max(1, examples * LARGEST_BATCH_SHARE):
        share = requested.batch_size / examples
        advice.append(
            f"batchSize {requested.batch_size} is {share:.0%} of the training examples; use 0.01 % "
            "to 4 %."
        )
    multiplier = requested.learning_rate_multiplier
    if requested.learning_rate is not None:
        if multiplier is not None:
            advice.append("learningRate is set, so learningRateMultiplier is not used.")
        multiplier = None
        learning_rate = requested.learning_rate
    else:
        if multiplier is None:
            multiplier, why = _default_multiplier(rules, base, batch_size, examples)
            advice += why
        elif not TRIED_MULTIPLIERS[0] <= multiplier <= TRIED_MULTIPLIERS[1]:
            advice.append(
                f"learningRateMultiplier {multiplier:g} is outside the recommended range, 0.02 to "
                "0.2."
            )
        learning_rate = multiplier * base.pretraining_learning_rate
        if method == "lora":
            learning_rate *= LORA_FACTOR
    values = {
        **DEFAULTS,
        **requested.model_dump(exclude_none=True),
        "batch_size": batch_size,
        "learning_rate_multiplier": multiplier,
        "learning_rate": learning_rate,
        "max_sequence_length": context,
    }
    resolved = ResolvedHyperparameters.model_validate(values)
    return Resolution(resolved, advice)


def run_advice(
    train: SplitCounts, chosen: ResolvedHyperparameters, workers: RankResources
) -> list[str]:
    """Advice about the run, never an error."""
    advice = []
    idle = workers.ranks - chosen.batch_size
    if idle > 0:
        unit = "GPUs" if workers.accelerator == "nvidia" else "ranks"
        advice.append(
            f"A batch of {chosen.batch_size} keeps {idle} of {workers.ranks} {unit} idle: use "
            "fewer, or set a larger batchSize."
        )
    if chosen.n_epochs > EPOCHS_ADVISED:
        advice.append(
            f"nEpochs {chosen.n_epochs} is more than the recommended 2 to 4 (1 to 2 for "
            "generation): watch the validation loss."
        )
    learned = train.tokens - train.prompt_tokens
    if train.prompt_tokens > LONG_PROMPTS * learned and chosen.prompt_loss_weight > 0.01:
        advice.append(
            f"Prompts are {train.prompt_tokens / max(1, learned):.0f} times as long as "
            f"completions: a promptLossWeight below {chosen.prompt_loss_weight:g} can give "
            "better results."
        )
    return advice


def _default_multiplier(
    rules: HyperparameterRules, base: BaseModelRef, batch_size: int, examples: int
) -> tuple[float, list[str]]:
    multiplier = rules.multiplier(batch_size)
    before = base.trained_examples
    if before is None or examples >= before * SMALL_CONTINUATION:
        return multiplier, []
    reduced = multiplier * CONTINUATION_FACTOR
    return reduced, [
        f"{base.name} was fine-tuned on {before:,} examples, and an epoch has {examples:,}, less "
        f"than a tenth: the learning rate multiplier is {reduced:.3g}, a third of {multiplier:g}."
    ]
