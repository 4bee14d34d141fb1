"""The progress of a run: what a resumed attempt needs besides weights and moments."""

from pydantic import Field

from finetune_api.outcome import EpochMetrics
from finetune_api.wire import Stored
from finetune_trainer.step.loss import Totals


class TrainingState(Stored):
    """The state after `step` steps. Random numbers derive from (seed, step) and need no state."""

    step: int = 0
    trained_tokens: int = 0  # counted again in each epoch, without padding
    trained_examples: int = 0
    first_loss: float | None = None  # training loss of the first step
    epoch_objective: float = 0  # Σ w·nll and Σ w of the current epoch
    epoch_weight: float = 0
    completed_epochs: list[EpochMetrics] = Field(default_factory=list)
    before: EpochMetrics | None = None  # metrics of the model that this run continues from

    @property
    def best_step(self) -> int | None:
        """The last step of the epoch with the lowest validation loss."""
        measured = [
            (metrics.validation_loss, metrics.step)
            for metrics in self.completed_epochs
            if metrics.validation_loss is not None
        ]
        return min(measured)[1] if measured else None

    def after_step(self, totals: Totals, tokens: int, examples: int) -> "TrainingState":
        """The state after one more optimizer step."""
        return self.replace(
            step=self.step + 1,
            trained_tokens=self.trained_tokens + tokens,
            trained_examples=self.trained_examples + examples,
            first_loss=self.first_loss if self.step else totals.loss,
            epoch_objective=self.epoch_objective + totals.objective,
            epoch_weight=self.epoch_weight + totals.weight,
        )

    def after_epoch(
        self, epoch: int, validation: Totals | None, learning_rate: float
    ) -> "TrainingState":
        """The state after an epoch, whose loss is Σ w·nll / Σ w over all its steps."""
        weight = self.epoch_weight
        metrics = _measured(epoch, self.step, validation).replace(
            training_loss=self.epoch_objective / weight if weight else None,
            learning_rate=learning_rate,
        )
        return self.replace(
            epoch_objective=0.0,
            epoch_weight=0.0,
            completed_epochs=[*self.completed_epochs, metrics],
        )

    def measured_before(self, validation: Totals) -> "TrainingState":
        """The state with an evaluation on the whole validation file before the first step."""
        return self.replace(before=_measured(0, self.step, validation))


def _measured(epoch: int, step: int, validation: Totals | None) -> EpochMetrics:
    if validation is None:
        return EpochMetrics(epoch=epoch, step=step)
    return EpochMetrics(
        epoch=epoch,
        step=step,
        validation_loss=validation.loss,
        validation_sequence_accuracy=validation.sequence_accuracy,
        validation_token_accuracy=validation.token_accuracy,
    )
