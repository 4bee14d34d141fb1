"""Rules on counts: examples, classes, batches, lengths, ranks, and the size of the model. Pure."""

from finetune_trainer.reporting.advice.curve_rules import (
    HIGH_ACCURACY,
    RECOMMENDED_EPOCHS,
    has_diverged,
)
from finetune_trainer.reporting.advice.evidence import Advice, Evidence
from finetune_trainer.reporting.formatting import count, number, percent

BATCH_SHARES = (0.0001, 0.04)  # of the training examples
LONG_PROMPTS = 10  # times the completions
UNEVEN = 1.5  # times a class's share of the examples if all classes were equal
FEW_EXAMPLES = 500
FEW_EXAMPLES_PER_CLASS = 100
FEW_STEPS = 30
FEW_VALIDATION_EXAMPLES = 50
CLASSES_NAMED = 3
LARGE_MODEL = 1_000_000_000  # parameters


def majority(evidence: Evidence) -> Advice | None:
    """The model is no better than one that always predicts the most frequent class."""
    confusion, accuracy = evidence.confusion, evidence.validation_accuracy
    if confusion is None or accuracy is None or len(confusion.labels) < 2:
        return None
    share = confusion.majority
    if accuracy > share + 0.02 or share == 1:
        return None
    why = (
        f"The accuracy is {percent(accuracy)}. A model that always predicts the most frequent "
        f"class would reach {percent(share)}."
    )
    if share > UNEVEN / len(confusion.labels):
        return Advice("Balance the classes", f"{why} Add examples of the other classes.")
    return Advice(
        "Check the prompts and labels",
        f"{why} Check that the prompts contain the information that decides the class, and that "
        "all of them end in the same way.",
    )


def confused_classes(evidence: Evidence) -> Advice | None:
    """One mistake is more frequent than the others."""
    worst = evidence.confusion.worst() if evidence.confusion else None
    if worst is None:
        return None
    truth, predicted, mistakes, total = worst
    if mistakes < 3 or mistakes < 0.1 * total:
        return None
    return Advice(
        "Add examples of two classes",
        f"The model predicted {_quoted(predicted)} for {mistakes:,} of {total:,} examples of "
        f"{_quoted(truth)}. Add examples of both classes, and check that their labels are correct.",
    )


def unseen_classes(evidence: Evidence) -> Advice | None:
    """The training file lacks a class of the validation file."""
    confusion, unseen = evidence.confusion, evidence.unseen_classes
    if confusion is None or not unseen:
        return None
    classes = "1 class" if unseen == 1 else f"{unseen:,} classes"
    why = f"The validation file has {classes} without an example in the training file"
    rows = confusion.never_right
    if len(rows) == unseen <= CLASSES_NAMED and not confusion.others:
        why += ": " + ", ".join(_quoted(confusion.labels[row]) for row in rows)
    return Advice(
        "Add examples of every class",
        f"{why}. The model cannot learn a class from no examples.",
    )


def _quoted(label: str) -> str:
    text = label.strip()
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"


def long_prompts(evidence: Evidence) -> Advice | None:
    """Prompts are much longer than completions, so that they dominate the loss."""
    weight = evidence.hyperparameters.prompt_loss_weight
    prompts, completions = evidence.prompt_tokens, evidence.completion_tokens
    if completions <= 0 or prompts <= LONG_PROMPTS * completions or weight <= 0.01:
        return None
    share = weight * prompts / (weight * prompts + completions)
    return Advice(
        "Lower the prompt loss weight",
        f"Prompts have {prompts / completions:.0f} times as many tokens as completions. With a "
        f"weight of {number(weight)}, they account for {share:.0%} of the loss.",
        "hyperparameters.promptLossWeight: 0.01",
    )


def batch_size(evidence: Evidence) -> Advice | None:
    """The batch size is outside 0.01% to 4% of the examples."""
    batch, examples = evidence.hyperparameters.batch_size, evidence.examples
    low, high = BATCH_SHARES
    if not examples:
        return None
    why = (
        f"A batch of {batch} is {100 * batch / examples:.3g}% of the {examples:,} training "
        "examples. Between 0.01% and 4% is recommended."
    )
    if batch > high * examples and batch > 1:
        smaller = max(1, int(high * examples))
        return Advice("Use a smaller batch size", why, f"hyperparameters.batchSize: {smaller}")
    if batch < low * examples:
        larger = min(256, round(0.002 * examples))
        return Advice("Use a larger batch size", why, f"hyperparameters.batchSize: {larger}")
    return None


def few_steps(evidence: Evidence) -> Advice | None:
    """The run has too few steps for the optimizer to adapt."""
    batch, steps = evidence.hyperparameters.batch_size, evidence.planned_steps
    if not 0 < steps < FEW_STEPS or batch == 1:
        return None
    return Advice(
        "Use a smaller batch size",
        f"The whole run has {count(steps, 'optimizer step')} of {batch} examples.",
        f"hyperparameters.batchSize: {max(1, batch * steps // (2 * FEW_STEPS))}",
    )


def idle_processes(evidence: Evidence) -> Advice | None:
    """There are more ranks than examples in a step."""
    idle = evidence.processes - evidence.hyperparameters.batch_size
    if idle <= 0:
        return None
    return Advice(
        f"Request fewer {evidence.unit}",
        f"With a batch size of {evidence.hyperparameters.batch_size}, {idle} of "
        f"{evidence.processes} {evidence.unit} were idle.",
        "resources",
    )


def few_validation_examples(evidence: Evidence) -> Advice | None:
    """The validation file is missing or too small to distinguish learning from memorizing."""
    if not evidence.steps:
        return None
    examples = evidence.validation_examples
    if examples == 0:
        return Advice(
            "Add a validation file",
            "Nothing was measured on examples that the model has not seen. A model that memorized "
            "its examples would look the same in this report.",
            "validationFile",
        )
    if examples < FEW_VALIDATION_EXAMPLES:
        error = 0.5 / examples**0.5
        return Advice(
            "Use a larger validation file",
            f"The validation file has {count(examples, 'example')}. A sequence accuracy measured "
            f"on it can be off by {200 * error:.0f} percentage points.",
            "validationFile",
        )
    return None


def few_examples(evidence: Evidence) -> Advice | None:
    """There are fewer than 100 examples per class, or than 500 for other texts."""
    examples = evidence.distinct_examples
    more = "Doubling the number of examples usually improves the model."
    if evidence.is_classification:
        classes = evidence.classes or 2
        if examples >= FEW_EXAMPLES_PER_CLASS * classes:
            return None
        return Advice(
            "Add training examples",
            f"The training data has {count(examples, 'example')} for {classes} classes. At least "
            f"{FEW_EXAMPLES_PER_CLASS} per class are recommended. {more}",
        )
    if not 0 < examples < FEW_EXAMPLES:
        return None
    return Advice(
        "Add training examples",
        f"The training data has {count(examples, 'example')}. At least {FEW_EXAMPLES} are "
        f"recommended for text generation. {more}",
    )


def many_epochs(evidence: Evidence) -> Advice | None:
    """There are more epochs than recommended, and no validation file to judge them by."""
    epochs = evidence.hyperparameters.n_epochs
    recommended = RECOMMENDED_EPOCHS[evidence.is_classification]
    if epochs <= max(4, recommended) or evidence.validation_examples or has_diverged(evidence):
        return None
    return Advice(
        "Train fewer epochs",
        f"The run had {epochs} epochs, and there is no validation file to show whether that was "
        "too many. Between 2 and 4 epochs are recommended, or 1 to 2 for text generation.",
        f"hyperparameters.nEpochs: {recommended}",
    )


def large_model(evidence: Evidence) -> Advice | None:
    """A classification task rarely needs a large model."""
    accuracy, size = evidence.validation_accuracy, evidence.model_parameters
    if not evidence.is_classification or size is None or size < LARGE_MODEL:
        return None
    if accuracy is None or accuracy < HIGH_ACCURACY:
        return None
    return Advice(
        "Try a smaller base model",
        f"The accuracy is {percent(accuracy)} with a base model of about {size / 1e9:.1f} "
        "billion parameters. In classification, a smaller model usually reaches nearly the same "
        "accuracy, and it is faster and cheaper.",
        "model",
    )
