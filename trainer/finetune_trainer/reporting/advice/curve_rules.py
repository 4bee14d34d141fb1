"""Rules on the curves: the speed of learning, divergence, and overfitting. Pure."""

from finetune_trainer.reporting.advice.evidence import Advice, Evidence
from finetune_trainer.reporting.formatting import number, percent

RECOMMENDED_MULTIPLIERS = (0.02, 0.2)
HIGH_ACCURACY = 0.9
SUFFICIENT_ACCURACY = 0.98  # more epochs cannot improve much on it
GAP = 0.15  # between training and validation accuracy
LOW_ACCURACY = {True: 0.8, False: 0.5}  # of classes; of the tokens of other texts
RISE = 1.02  # factor of the validation loss over its lowest value
GROWTH = 1.1  # factor of the training loss at the end over the start
MOST = 0.75  # share of the last epoch's steps
DIVERGED = 10  # factor by which to lower the rate: half of a diverging rate often diverges, too
FALL = 0.97  # factor of the loss over an epoch, below which more epochs may help
RECOMMENDED_EPOCHS = {True: 4, False: 2}  # at most; for classes, for other texts


def not_finite(evidence: Evidence) -> Advice | None:
    """The loss or the gradient norm became NaN or infinite."""
    if not evidence.lost_steps:
        return None
    return Advice(
        "Lower the learning rate",
        "The loss or the gradient norm was NaN or infinite at step "
        f"{evidence.lost_steps[0]:,}. The learning rate was too high.",
        _lower_rate(evidence, DIVERGED),
    )


def diverged(evidence: Evidence) -> Advice | None:
    """The training loss ended above its start."""
    if (growth := _growth(evidence)) is None:
        return None
    return Advice(
        "Lower the learning rate",
        f"The training diverged: the training loss was {growth}. The learning rate was too high.",
        _lower_rate(evidence, DIVERGED),
    )


def has_diverged(evidence: Evidence) -> bool:
    """Whether the run diverged; its curves then say nothing about the number of epochs."""
    return bool(evidence.lost_steps) or _growth(evidence) is not None


def _growth(evidence: Evidence) -> str | None:
    """The loss at the start and at the end as text; None if it did not grow."""
    begin, end = evidence.first_step_loss, None
    if evidence.epochs:
        end = evidence.epochs[-1].training_loss
    if begin is not None and end is not None and _is_above(evidence, begin, end):
        return f"{number(begin)} at the first step and {number(end)} in the last epoch"
    begin, end = evidence.first_loss, evidence.last_loss
    if begin is None or end is None or evidence.steps < 20 or end <= GROWTH * begin:
        return None
    return f"{number(begin)} in the first tenth of the steps and {number(end)} in the last tenth"


def _is_above(evidence: Evidence, first_step: float, last_epoch: float) -> bool:
    """Whether the loss grew by more than the noise of one step or of a run that learned nothing."""
    if last_epoch < first_step or evidence.share_above_first < MOST:
        return False
    return last_epoch > GROWTH * first_step or bool(evidence.spikes)


def spikes(evidence: Evidence) -> Advice | None:
    """The training loss jumped."""
    found = evidence.spikes
    if not found:
        return None
    worst = max(found, key=lambda spike: spike.loss / max(spike.usual, 1e-9))
    values = f"{number(worst.loss)}, with a median of {number(worst.usual)} in the steps before"
    if len(found) == 1:
        why = f"The training loss jumped at step {worst.step:,}: {values}."
    else:
        why = (
            f"The training loss jumped {len(found):,} times, most at step {worst.step:,}: {values}."
        )
    return Advice("Lower the learning rate", why, _lower_rate(evidence, 2))


def _lower_rate(evidence: Evidence, factor: float) -> str:
    if evidence.multiplier is None:
        rate = evidence.hyperparameters.learning_rate / factor
        return f"hyperparameters.learningRate: {number(rate)}"
    return f"hyperparameters.learningRateMultiplier: {number(evidence.multiplier / factor)}"


def validation_loss_rose(evidence: Evidence) -> Advice | None:
    """An epoch before the last one had the lowest validation loss."""
    losses = [
        (epoch.validation_loss, epoch.epoch)
        for epoch in evidence.epochs
        if epoch.validation_loss is not None
    ]
    if len(losses) < 2 or has_diverged(evidence):
        return None
    (best, epoch), (last, end) = min(losses), losses[-1]
    if epoch == end or last <= RISE * best:
        return None
    return Advice(
        "Train fewer epochs",
        f"The validation loss was lowest after epoch {epoch} ({number(best)}) and rose to "
        f"{number(last)} after epoch {end}: the model started to memorize the training file.",
        f"hyperparameters.nEpochs: {epoch}",
    )


def worse_than_before(evidence: Evidence) -> Advice | None:
    """A continued model had a lower validation loss before this training."""
    before = evidence.before.validation_loss if evidence.before else None
    after = evidence.epochs[-1].validation_loss if evidence.epochs else None
    if before is None or after is None or after <= RISE * before:
        return None
    return Advice(
        "Keep the previous model, or add examples from its training",
        f"The validation loss was {number(before)} before the first step and is {number(after)} "
        "now: the model forgets earlier training. To prevent this, add examples from the earlier "
        "training file, or lower the learning rate.",
        _lower_rate(evidence, 2),
    )


def overfitting(evidence: Evidence) -> Advice | None:
    """High training accuracy with low validation accuracy."""
    training, validation = evidence.training_accuracy, evidence.validation_accuracy
    if training is None or validation is None or has_diverged(evidence):
        return None
    if training < HIGH_ACCURACY or training - validation < GAP:
        return None
    why = (
        f"The {evidence.accuracy_name} is {percent(training)} on the training file and "
        f"{percent(validation)} on the validation file: the model memorizes its examples instead "
        "of learning the task."
    )
    epochs = evidence.hyperparameters.n_epochs
    if epochs == 1:
        return Advice("Add training examples", why)
    return Advice("Train fewer epochs", why, f"hyperparameters.nEpochs: {max(1, epochs // 2)}")


def too_few_epochs(evidence: Evidence) -> Advice | None:
    """Low training accuracy, or a loss that was still falling in the last epoch."""
    training, epochs = evidence.training_accuracy, evidence.hyperparameters.n_epochs
    if training is None or evidence.steps == 0 or has_diverged(evidence):
        return None
    if worse_than_before(evidence) or _best_accuracy(evidence) >= SUFFICIENT_ACCURACY:
        return None
    fall = _last_fall(evidence)
    is_low = _is_low(evidence)
    is_falling = fall is not None and fall[1] < FALL * fall[0]
    can_add_epochs = epochs < RECOMMENDED_EPOCHS[evidence.is_classification]
    if not is_low and not (is_falling and can_add_epochs):
        return None
    if fall is not None and not is_falling:
        return None  # more epochs change little; `slow_learning` covers this case
    why = f"The {evidence.accuracy_name} on the training file is {percent(training)}"
    if fall is not None:
        why += f", and the last epoch lowered the {fall[2]} loss from {number(fall[0])} to "
        why += number(fall[1])
    return Advice("Train more epochs", f"{why}.", f"hyperparameters.nEpochs: {min(50, 2 * epochs)}")


def _is_low(evidence: Evidence) -> bool:
    """Whether the accuracy is low on the training file and on the validation file."""
    return _best_accuracy(evidence) < LOW_ACCURACY[evidence.is_classification]


def _best_accuracy(evidence: Evidence) -> float:
    known = (evidence.training_accuracy, evidence.validation_accuracy)
    return max((value for value in known if value is not None), default=1.0)


def _last_fall(evidence: Evidence) -> tuple[float, float, str] | None:
    """The loss before and after the last epoch; the validation loss if it was measured."""
    if len(evidence.epochs) < 2:
        return None
    before, after = evidence.epochs[-2:]
    if before.validation_loss is not None and after.validation_loss is not None:
        return before.validation_loss, after.validation_loss, "validation"
    if before.training_loss is not None and after.training_loss is not None:
        return before.training_loss, after.training_loss, "training"
    return None


def slow_learning(evidence: Evidence) -> Advice | None:
    """Low training accuracy with a constant loss and a multiplier that can still be raised."""
    training, multiplier = evidence.training_accuracy, evidence.multiplier
    if training is None or multiplier is None or evidence.spikes or evidence.lost_steps:
        return None
    if not _is_low(evidence) or multiplier >= RECOMMENDED_MULTIPLIERS[1]:
        return None
    if validation_loss_rose(evidence):
        return None  # a higher rate would only memorize faster
    higher = min(RECOMMENDED_MULTIPLIERS[1], 2 * multiplier)
    batch = evidence.hyperparameters.batch_size
    return Advice(
        "Raise the learning rate",
        f"The {evidence.accuracy_name} on the training file is {percent(training)} with a learning "
        f"rate multiplier of {number(multiplier)} and a batch size of {batch}. Values from 0.02 to "
        "0.2 are recommended, with higher values for larger batches.",
        f"hyperparameters.learningRateMultiplier: {number(higher)}",
    )


def unusual_multiplier(evidence: Evidence) -> Advice | None:
    """The learning rate multiplier is outside the recommended range."""
    multiplier, (low, high) = evidence.multiplier, RECOMMENDED_MULTIPLIERS
    if multiplier is None or low <= multiplier <= high:
        return None
    return Advice(
        "Use a learning rate multiplier in the recommended range",
        f"The multiplier was {number(multiplier)}. Values from {low} to {high} are recommended, "
        "with higher values for larger batches.",
        f"hyperparameters.learningRateMultiplier: {low if multiplier < low else high}",
    )
