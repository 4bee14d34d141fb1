"""Rules about the curves: how fast it learned, and whether it learned the task. Pure."""

from finetune_trainer.reporting.advice.evidence import Advice, Evidence
from finetune_trainer.reporting.formatting import number, percent

TRIED_MULTIPLIERS = (0.02, 0.2)
HIGH_ACCURACY = 0.9
DONE_ACCURACY = 0.98  # from which on further epochs have nothing to teach
GAP = 0.15  # between training and validation accuracy
LOW_ACCURACY = {True: 0.8, False: 0.5}  # of classes; of tokens of other texts
RISE = 1.02  # of the validation loss over its lowest
GROWTH = 1.1  # of the training loss, from the begin to the end
MOST = 0.75  # of the last epoch's steps
DIVERGED = 10  # times smaller steps; half of a rate that diverged mostly diverges again
FALL = 0.97  # of a loss over an epoch, that more epochs may go on with
ADVISED_EPOCHS = {True: 4, False: 2}  # at most; for classes, for other texts


def no_numbers(evidence: Evidence) -> Advice | None:
    """The loss or the gradient became NaN or infinite."""
    if not evidence.lost_steps:
        return None
    return Advice(
        "Lower the learning rate",
        f"The loss or the gradient is no number at step {evidence.lost_steps[0]:,}: the steps "
        "were too large.",
        _smaller_rate(evidence, DIVERGED),
    )


def diverged(evidence: Evidence) -> Advice | None:
    """The training made the model worse."""
    if (growth := _growth(evidence)) is None:
        return None
    return Advice(
        "Lower the learning rate",
        f"The training loss ended above where it began: {growth}. The steps were too large.",
        _smaller_rate(evidence, DIVERGED),
    )


def has_diverged(evidence: Evidence) -> bool:
    """Then the curves say nothing about how many epochs are right."""
    return bool(evidence.lost_steps) or _growth(evidence) is not None


def _growth(evidence: Evidence) -> str | None:
    """Where the loss began and ended, in words; None where it didn't grow."""
    begin, end = evidence.first_step_loss, None
    if evidence.epochs:
        end = evidence.epochs[-1].training_loss
    if begin is not None and end is not None and _is_above(evidence, begin, end):
        return f"{number(begin)} at the first step, {number(end)} in the last epoch"
    begin, end = evidence.first_loss, evidence.last_loss
    if begin is None or end is None or evidence.steps < 20 or end <= GROWTH * begin:
        return None
    return f"{number(begin)} in the first tenth of the steps, {number(end)} in the last"


def _is_above(evidence: Evidence, first_step: float, last_epoch: float) -> bool:
    """One step's loss is noisy, and a run that learned nothing stands still: neither is meant."""
    if last_epoch < first_step or evidence.share_above_first < MOST:
        return False
    return last_epoch > GROWTH * first_step or bool(evidence.spikes)


def spikes(evidence: Evidence) -> Advice | None:
    """The loss jumped."""
    found = evidence.spikes
    if not found:
        return None
    worst = max(found, key=lambda spike: spike.loss / max(spike.usual, 1e-9))
    jumped = "jumped" if len(found) == 1 else f"jumped {len(found):,} times, the most"
    return Advice(
        "Lower the learning rate",
        f"The training loss {jumped} at step {worst.step:,}: {number(worst.loss)} where "
        f"{number(worst.usual)} was usual.",
        _smaller_rate(evidence, 2),
    )


def _smaller_rate(evidence: Evidence, factor: float) -> str:
    if evidence.multiplier is None:
        rate = evidence.parameters.learning_rate / factor
        return f"hyperparameters.learningRate: {number(rate)}"
    return f"hyperparameters.learningRateMultiplier: {number(evidence.multiplier / factor)}"


def validation_loss_rose(evidence: Evidence) -> Advice | None:
    """The best epoch was not the last."""
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
        f"The validation loss was lowest after epoch {epoch}, {number(best)}, and {number(last)} "
        f"after epoch {end}: from there on the model learned the training file by heart.",
        f"hyperparameters.nEpochs: {epoch}",
    )


def worse_than_before(evidence: Evidence) -> Advice | None:
    """The model that it continued from answers the validation file better."""
    before = evidence.before.validation_loss if evidence.before else None
    after = evidence.epochs[-1].validation_loss if evidence.epochs else None
    if before is None or after is None or after <= RISE * before:
        return None
    return Advice(
        "Keep the model that it continued from, or mix former examples in",
        f"On the validation file the loss was {number(before)} before the first step and is "
        f"{number(after)} now: what was learned before is being forgotten. Former examples among "
        "the new ones, or a lower learning rate, keep it.",
        _smaller_rate(evidence, 2),
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
        f"{percent(validation)} on the validation file: the model knows its examples, not the task."
    )
    epochs = evidence.parameters.n_epochs
    if epochs == 1:
        return Advice("Give it more examples", why)
    return Advice("Train fewer epochs", why, f"hyperparameters.nEpochs: {max(1, epochs // 2)}")


def too_few_epochs(evidence: Evidence) -> Advice | None:
    """Low training accuracy, or a loss that the last epoch still lowered well."""
    training, epochs = evidence.training_accuracy, evidence.parameters.n_epochs
    if training is None or evidence.steps == 0 or has_diverged(evidence):
        return None
    if worse_than_before(evidence) or _best_known(evidence) >= DONE_ACCURACY:
        return None
    fall = _last_fall(evidence)
    is_low = _is_low(evidence)
    is_falling = fall is not None and fall[1] < FALL * fall[0]
    if not is_low and not (is_falling and epochs < ADVISED_EPOCHS[evidence.is_classification]):
        return None
    if fall is not None and not is_falling:
        return None  # more of the same changes little: see `slow_learning`
    why = f"The {evidence.accuracy_name} on the training file is {percent(training)}"
    if fall is not None:
        why += f", and the last epoch lowered the {fall[2]} loss from {number(fall[0])} to "
        why += number(fall[1])
    return Advice("Train more epochs", f"{why}.", f"hyperparameters.nEpochs: {min(50, 2 * epochs)}")


def _is_low(evidence: Evidence) -> bool:
    """Of what was trained on; a validation file that is answered well is a better witness."""
    return _best_known(evidence) < LOW_ACCURACY[evidence.is_classification]


def _best_known(evidence: Evidence) -> float:
    known = (evidence.training_accuracy, evidence.validation_accuracy)
    return max((value for value in known if value is not None), default=1.0)


def _last_fall(evidence: Evidence) -> tuple[float, float, str] | None:
    """The loss before and after the last epoch: the validation file's where there is one."""
    if len(evidence.epochs) < 2:
        return None
    before, after = evidence.epochs[-2:]
    if before.validation_loss is not None and after.validation_loss is not None:
        return before.validation_loss, after.validation_loss, "validation"
    if before.training_loss is not None and after.training_loss is not None:
        return before.training_loss, after.training_loss, "training"
    return None


def slow_learning(evidence: Evidence) -> Advice | None:
    """Low training accuracy though the loss no longer falls, at a multiplier with room above."""
    training, multiplier = evidence.training_accuracy, evidence.multiplier
    if training is None or multiplier is None or evidence.spikes or evidence.lost_steps:
        return None
    if not _is_low(evidence) or multiplier >= TRIED_MULTIPLIERS[1]:
        return None
    if validation_loss_rose(evidence):
        return None  # larger steps would only learn by heart faster
    larger = min(TRIED_MULTIPLIERS[1], 2 * multiplier)
    batch = evidence.parameters.batch_size
    return Advice(
        "Raise the learning rate",
        f"The {evidence.accuracy_name} on the training file is {percent(training)} with a "
        f"multiplier of {number(multiplier)} at batches of {batch}; 0.02 to 0.2 is the tried "
        "range, higher with larger batches.",
        f"hyperparameters.learningRateMultiplier: {number(larger)}",
    )


def untried_multiplier(evidence: Evidence) -> Advice | None:
    """Outside the tried range."""
    multiplier, (low, high) = evidence.multiplier, TRIED_MULTIPLIERS
    if multiplier is None or low <= multiplier <= high:
        return None
    return Advice(
        "Try a multiplier in the tried range",
        f"It was {number(multiplier)}; {low} to {high} is tried, higher with larger batches.",
        f"hyperparameters.learningRateMultiplier: {low if multiplier < low else high}",
    )
