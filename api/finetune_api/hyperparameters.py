"""The hyperparameters of a fine-tune, as requested and as used, and the rules between the two.

This module is the only place where a hyperparameter is declared. The spec inherits
RequestedHyperparameters. The status, the tasks of the pods, the report and the model card list the
fields of ResolvedHyperparameters. `finetune_data.prepare.hyperparameters` resolves one into the
other.
"""

from typing import Any, Literal

from pydantic import Field

from finetune_api.wire import Stored, Wire

LrSchedule = Literal["cosine", "linear", "constant"]
DEFAULT_MARK = " Default: "  # before the last sentence of a description


class RequestedHyperparameters(Stored):
    """The hyperparameters that a user may set. None means that the prepare Job resolves it."""

    n_epochs: int = Field(
        4, ge=1, le=50, description="Number of passes over the training file (epochs)."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="Number of examples in each optimizer step, in total over all GPUs. "
        "Default: 0.2 % of the training examples, at least 1 and at most 256 (chart value "
        "hyperparameters).",
    )
    learning_rate_multiplier: float | None = Field(
        None,
        ge=1e-6,
        le=100,
        description="Multiplier applied to the base model's pre-training learning rate. "
        "Recommended range: 0.02-0.2. With method lora the product is multiplied by 10. "
        "Default: 0.05, from batch size 16 on 0.1, from batch size 64 on 0.2 (chart value "
        "hyperparameters); a third of it when a fine-tuned model continues with less than a tenth "
        "of the examples that it was fine-tuned on.",
    )
    prompt_loss_weight: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Weight of prompt tokens in the loss. Completion tokens have weight 1.",
    )
    learning_rate: float | None = Field(
        None,
        ge=1e-9,
        le=1,
        description="Peak learning rate as an absolute value, in place of "
        "learningRateMultiplier. Default: learningRateMultiplier times the base model's "
        "pre-training learning rate, and times 10 with method lora.",
    )
    warmup_ratio: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Fraction of all optimizer steps in which the learning rate rises linearly to "
        "its peak. Default: 0.1.",
    )
    weight_decay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight decay of AdamW. Vectors, such as biases and norms, are not decayed. "
        "Default: 0.01.",
    )
    lr_schedule: LrSchedule | None = Field(
        None, description="Course of the learning rate after the warmup. Default: cosine."
    )
    max_sequence_length: int | None = Field(
        None,
        ge=8,
        le=1048576,
        description="Maximum number of tokens in an example, prompt and completion together. "
        "Longer examples are invalid lines; see dataTolerance. A value above the base model's "
        "context length is reduced to it. Default: the context length of the base model.",
    )
    seed: int | None = Field(
        None,
        ge=0,
        le=2147483647,
        description="Seed of the order of the examples and of the initial LoRA weights. "
        "Default: 42.",
    )


def _used(name: str, default: Any = ...) -> Any:
    """Describe a resolved field with the words of the requested one, without its default.

    Give a `default` to every field that is added from now on: statuses and tasks that an older
    version wrote have no value for it.
    """
    description = RequestedHyperparameters.model_fields[name].description or ""
    return Field(default, description=description.partition(DEFAULT_MARK)[0])


class ResolvedHyperparameters(Stored):
    """Every hyperparameter as used. `status.resolved` and the manifest of the model contain it."""

    n_epochs: int = _used("n_epochs")
    batch_size: int = _used("batch_size")
    learning_rate_multiplier: float | None = Field(
        None,
        description="Multiplier applied to the base model's pre-training learning rate. Absent "
        "when the spec sets learningRate.",
    )
    learning_rate: float = Field(description="Peak learning rate as an absolute value.")
    prompt_loss_weight: float = _used("prompt_loss_weight")
    warmup_ratio: float = _used("warmup_ratio")
    weight_decay: float = _used("weight_decay")
    lr_schedule: LrSchedule = _used("lr_schedule")
    max_sequence_length: int = Field(
        description="Maximum number of tokens in an example, prompt and completion together."
    )
    seed: int = _used("seed")

    def steps_per_epoch(self, examples: int) -> int:
        """Optimizer steps in one epoch. The last one takes the examples that remain."""
        return -(-examples // self.batch_size)

    def steps(self, examples: int) -> int:
        """Optimizer steps in all epochs."""
        return self.steps_per_epoch(examples) * self.n_epochs


class MultiplierStep(Wire):
    """The learning rate multiplier for batches of at least this many examples."""

    batch_size_from: int = Field(ge=1)
    value: float = Field(gt=0)


class HyperparameterRules(Wire):
    """The chart's part of the resolution.

    The thresholds are this project's choice: OpenAI's fine-tunes API did not publish its own.
    """

    batch_size_share: float = Field(0.002, gt=0, le=1)
    batch_size_maximum: int = Field(256, ge=1)
    learning_rate_multipliers: tuple[MultiplierStep, ...] = (
        MultiplierStep(batch_size_from=1, value=0.05),
        MultiplierStep(batch_size_from=16, value=0.1),
        MultiplierStep(batch_size_from=64, value=0.2),
    )

    def batch_size(self, examples: int) -> int:
        """The default batch size: a share of the examples, at least 1, at most the maximum."""
        return max(1, min(self.batch_size_maximum, round(examples * self.batch_size_share)))

    def multiplier(self, batch_size: int) -> float:
        """The default multiplier: the value of the last step that the batch size reaches."""
        steps = sorted(self.learning_rate_multipliers, key=lambda step: step.batch_size_from)
        reached = [step.value for step in steps if step.batch_size_from <= batch_size]
        return (reached or [steps[0].value])[-1]
