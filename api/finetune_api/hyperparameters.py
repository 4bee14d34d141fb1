"""From what the user left open to what is used: pure rules, with the chart's thresholds."""

from typing import Literal

from pydantic import Field

from finetune_api.wire import Stored, Wire

LrSchedule = Literal["cosine", "linear", "constant"]


class MultiplierStep(Wire):
    """The learning rate multiplier from this batch size on."""

    batch_size_from: int = Field(ge=1)
    value: float = Field(gt=0)


class HyperparameterRules(Wire):
    """The chart's part of the resolution. The cut points are ours: the old service kept its own."""

    batch_size_share: float = Field(0.002, gt=0, le=1)
    batch_size_maximum: int = Field(256, ge=1)
    learning_rate_multipliers: tuple[MultiplierStep, ...] = (
        MultiplierStep(batch_size_from=1, value=0.05),
        MultiplierStep(batch_size_from=16, value=0.1),
        MultiplierStep(batch_size_from=64, value=0.2),
    )

    def batch_size(self, examples: int) -> int:
        """0.2 % of the examples, at least 1, at most 256."""
        return max(1, min(self.batch_size_maximum, round(examples * self.batch_size_share)))

    def multiplier(self, batch_size: int) -> float:
        """The value of the last step that this batch size reaches."""
        steps = sorted(self.learning_rate_multipliers, key=lambda step: step.batch_size_from)
        reached = [step.value for step in steps if step.batch_size_from <= batch_size]
        return (reached or [steps[0].value])[-1]


class ResolvedHyperparameters(Stored):
    """Every hyperparameter as used; stands in `status.resolved` and in the manifest."""

    n_epochs: int
    batch_size: int  # examples an optimizer step, over all GPUs
    learning_rate_multiplier: float | None = None  # none where learningRate was given
    learning_rate: float  # absolute, at the schedule's peak
    prompt_loss_weight: float
    warmup_ratio: float
    weight_decay: float
    lr_schedule: LrSchedule
    max_sequence_length: int  # tokens
    seed: int

    def steps_per_epoch(self, examples: int) -> int:
        """The last step of an epoch takes what is left."""
        return -(-examples // self.batch_size)

    def steps(self, examples: int) -> int:
        return self.steps_per_epoch(examples) * self.n_epochs
