"""Rules about counts: examples, classes, batches, lengths and the ranks they kept busy. Pure."""

from finetune_trainer.reporting.advice.curve_rules import (
    ADVISED_EPOCHS,
    HIGH_ACCURACY,
    has_diverged,
)
from finetune_trainer.reporting.advice.evidence import Advice, Evidence
from finetune_trainer.reporting.formatting import number, percent

BATCH_SHARES = (0.0001, 0.04)  # of the examples
LONG_PROMPTS = 10  # times the completions
UNEVEN = 1.5  # times a class's fair share of the examples
FEW_EXAMPLES = 500
FEW_EXAMPLES_A_CLASS = 100
FEW_STEPS = 30
FEW_VALIDATION_EXAMPLES = 50
CLASSES_NAMED = 3
LARGER_MODELS = ("babbage", "curie", "davinci")
SMALLEST_MODEL = "ada"


def majority(evidence: Evidence) -> Advice | None:
    """No better than always the same answer."""
    confusion, accuracy = evidence.confusion, evidence.validation_accuracy
    if confusion is None or accuracy is None or len(confusion.labels) < 2:
        return None
    share = confusion.majority
    if accuracy > share + 0.02 or share == 1:
        return None
    why = (
        f"The accuracy is {percent(accuracy)}, and always saying the most frequent class would "
        f"reach {percent(share)}"
    )
    if share > UNEVEN / len(confusion.labels):
        return Advice("Balance the classes", f"{why}: give the other classes more examples.")
    return Advice(
        "Look at prompts and labels",
        f"{why}: do the prompts say what decides the class, and do they all end alike?",
    )


def confused_classes(evidence: Evidence) -> Advice | None:
    """One mistake that stands out."""
    worst = evidence.confusion.worst() if evidence.confusion else None
    if worst is None:
        return None
    truth, said, count, total = worst
    if count < 3 or count < 0.1 * total:
        return None
    return Advice(
        "Give more examples of two classes",
        f"{_quoted(truth)} was taken for {_quoted(said)} {count:,} of {total:,} times: more "
        "examples of both, and a look whether their labels are right.",
    )


def unseen_classes(evidence: Evidence) -> Advice | None:
    """What the training file doesn't show can't be learned."""
    confusion, count = evidence.confusion, evidence.unseen_classes
    if confusion is None or not count:
        return None
    classes = "1 class" if count == 1 else f"{count:,} classes"
    why = f"The validation file has {classes} without an example in the training file"
    rows = confusion.never_right
    if len(rows) == count <= CLASSES_NAMED and not confusion.others:
        why += ": " + ", ".join(_quoted(confusion.labels[row]) for row in rows)
    return Advice(
        "Give examples of every class", f"{why}. The model can't learn what it never saw."
    )


def _quoted(label: str) -> str:
    text = label.strip()
    return f"“{text if len(text) <= 40 else text[:39] + '…'}”"


def long_prompts(evidence: Evidence) -> Advice | None:
    """Long prompts with short completions: most of the loss is the prompts'."""
    weight = evidence.parameters.prompt_loss_weight
    prompts, completions = evidence.prompt_tokens, evidence.completion_tokens
    if completions <= 0 or prompts <= LONG_PROMPTS * completions or weight <= 0.01:
        return None
    share = weight * prompts / (weight * prompts + completions)
    return Advice(
        "Lower the prompt loss weight",
        f"Prompts have {prompts / completions:.0f} times as many tokens as completions: at a "
        f"weight of {number(weight)} they make {share:.0%} of the loss.",
        "hyperparameters.promptLossWeight: 0.01",
    )


def large_batch(evidence: Evidence) -> Advice | None:
    """0.01 % to 4 % of the examples is advised."""
    batch, examples = evidence.parameters.batch_size, evidence.examples
    low, high = BATCH_SHARES
    if not examples:
        return None
    share = f"{100 * batch / examples:.3g} %"
    why = f"A batch of {batch} is {share} of the {examples:,} training examples"
    if batch > high * examples and batch > 1:
        smaller = max(1, int(high * examples))
        return Advice(
            "Use a smaller batch",
            f"{why}; 0.01 % to 4 % is advised.",
            f"hyperparameters.batchSize: {smaller}",
        )
    if batch < low * examples:
        return Advice(
            "Use a larger batch",
            f"{why}; 0.01 % to 4 % is advised.",
            f"hyperparameters.batchSize: {min(256, round(0.002 * examples))}",
        )
    return None


def few_steps(evidence: Evidence) -> Advice | None:
    """AdamW had hardly begun."""
    batch, steps = evidence.parameters.batch_size, evidence.planned_steps
    if not 0 < steps < FEW_STEPS or batch == 1:
        return None
    plural = "" if steps == 1 else "s"
    return Advice(
        "Use a smaller batch",
        f"The whole run is {steps} optimizer step{plural} of {batch} examples.",
        f"hyperparameters.batchSize: {max(1, batch * steps // (2 * FEW_STEPS))}",
    )


def idle_processes(evidence: Evidence) -> Advice | None:
    """More ranks than examples in a step."""
    idle = evidence.processes - evidence.parameters.batch_size
    if idle <= 0:
        return None
    return Advice(
        f"Ask for fewer {evidence.unit}",
        f"A batch of {evidence.parameters.batch_size} kept {idle} of {evidence.processes} "
        f"{evidence.unit} idle.",
        "resources",
    )


def no_validation(evidence: Evidence) -> Advice | None:
    """Nothing tells learning from memorising."""
    if not evidence.steps:
        return None
    if evidence.validation_examples == 0:
        return Advice(
            "Give it a validation file",
            "Nothing was measured on examples that the model has not seen: a model that learned "
            "its examples by heart would look the same here.",
            "validationFile",
        )
    if evidence.validation_examples < FEW_VALIDATION_EXAMPLES:
        error = 0.5 / evidence.validation_examples**0.5
        return Advice(
            "Give it a larger validation file",
            f"It has {evidence.validation_examples} examples: a share of whole examples measured "
            f"on it may be off by {200 * error:.0f} percentage points.",
            "validationFile",
        )
    return None


def few_examples(evidence: Evidence) -> Advice | None:
    """100 a class, 500 for generation."""
    examples = evidence.examples
    if evidence.is_classification:
        classes = evidence.classes or 2
        if examples >= FEW_EXAMPLES_A_CLASS * classes:
            return None
        return Advice(
            "Give it more examples",
            f"{examples:,} examples for {classes} classes; {FEW_EXAMPLES_A_CLASS} a class are "
            "advised, and twice as many mostly help.",
        )
    if not 0 < examples < FEW_EXAMPLES:
        return None
    return Advice(
        "Give it more examples",
        f"{examples:,} examples; {FEW_EXAMPLES} are advised for generation, and twice as many "
        "mostly help.",
    )


def many_epochs(evidence: Evidence) -> Advice | None:
    """More than advised, with nothing measured that would say whether it was too much."""
    epochs, advised = evidence.parameters.n_epochs, ADVISED_EPOCHS[evidence.is_classification]
    if epochs <= max(4, advised) or evidence.validation_examples or has_diverged(evidence):
        return None
    return Advice(
        "Train fewer epochs",
        f"It was {epochs} epochs, and no validation file tells whether that was too many; 2 to 4 "
        "are advised, 1 to 2 for generation.",
        f"hyperparameters.nEpochs: {advised}",
    )


def smaller_model(evidence: Evidence) -> Advice | None:
    """Classes rarely need a large model."""
    accuracy = evidence.validation_accuracy
    if not evidence.is_classification or evidence.root not in LARGER_MODELS:
        return None
    if accuracy is None or accuracy < HIGH_ACCURACY:
        return None
    return Advice(
        "Try the smallest model",
        f"{evidence.root} reaches {percent(accuracy)}; for classes {SMALLEST_MODEL} is mostly as "
        "good, and it is faster and cheaper.",
        f"model: {SMALLEST_MODEL}",
    )
