"""The facts of a run as labels and values, for the page and the card."""

from collections.abc import Iterator
from typing import NamedTuple

from finetune_api.outcome import EpochMetrics
from finetune_data.read.findings import shown
from finetune_data.read.sources import InputFile
from finetune_data.tokenize.dataset import TRAIN, FileShare, LearnedEnd, SplitCounts
from finetune_data.tokenize.spans import describe_split
from finetune_trainer.evaluation.class_metrics import PREFIX as CLASSIFICATION
from finetune_trainer.reporting.formatting import (
    count,
    duration,
    metric_label,
    number,
    percent,
    size,
)
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.report_data import ReportData

SPLITS = {"train": "Training", "validation": "Validation"}


class Fact(NamedTuple):
    """A label and its value; `is_code` marks names that readers copy."""

    label: str
    value: str
    is_code: bool = False
    note: str = ""


def model_facts(data: ReportData) -> list[Fact]:
    """The FineTune, the base model, the method, and the location of the files."""
    run = data.run
    found = [
        Fact("FineTune", f"{run.run.namespace}/{run.run.name}", is_code=True),
        Fact("Base model", run.base.name, is_code=True, note=run.base.uri),
        *([Fact("Revision", run.base.revision, is_code=True)] if run.base.revision else []),
        Fact("Method", _method(data)),
        Fact("Output", str(run.run.layout.root), is_code=True),
    ]
    if data.published:
        found.append(Fact("Published", data.published))
    return found


def _method(data: ReportData) -> str:
    method = data.run.method
    if method.type == "full":
        return "full fine-tuning (all weights)"
    targets = ", ".join(method.targets) if method.targets else "all linear layers"
    text = f"LoRA with rank {method.rank}, alpha {number(method.alpha)}, on {targets}"
    return f"{text}, dropout {number(method.dropout)}" if method.dropout else text


def data_facts(data: ReportData) -> list[Fact]:
    """The data files with their digests and counts."""
    found = []
    inputs, shares = data.dataset.source.inputs, data.dataset.training_files or []
    for index, share in enumerate(shares):
        if (known := inputs.get(share.input)) is not None:
            found.append(_file(f"trainingFiles[{index}]", known))
    for name, label in SPLITS.items():
        if (known := inputs.get(name)) is not None:
            found.append(_file(f"{label} file", known))
        if (counts := data.dataset.splits.get(name)) is not None:
            unit = "examples in an epoch" if shares and name == TRAIN else "examples"
            note = _counts(counts) + _conversations(data, name, counts)
            found.append(Fact(f"{label} {unit}", f"{counts.examples:,}", note=note))
    found += [
        Fact("End of an answer", ends_sentence(end), note=how_learned(data, end))
        for end in data.dataset.ends
    ]
    length = data.run.hyperparameters.max_sequence_length
    found.append(Fact("Maximum example length", f"{length:,} tokens"))
    return found


def _file(label: str, known: InputFile) -> Fact:
    digest = f"SHA-256 {known.sha256}" if known.sha256 else f"ETag {known.etag}"
    return Fact(label, known.uri, is_code=True, note=f"{size(known.size)}, {digest}")


SHARE_COLUMNS = (
    "Training file",
    "Examples",
    "Skipped lines",
    "Weight",
    "Examples in an epoch",
    "Share",
    "Each example occurs",
)


def training_file_rows(data: ReportData) -> list[tuple[str, ...]]:
    """A row of SHARE_COLUMNS for each of several training files; none for a single file."""
    shares = data.dataset.training_files or []
    whole = sum(share.epoch_examples for share in shares)
    return [
        (
            f"trainingFiles[{index}]",
            f"{share.examples:,}",
            f"{share.skipped_lines:,}",
            "–" if share.weight is None else f"{share.weight:g}",
            f"{share.epoch_examples:,}",
            percent(share.epoch_examples / whole if whole else None),
            _times(share),
        )
        for index, share in enumerate(shares)
    ]


def _times(share: FileShare) -> str:
    """`once`, `3 times`, or `16 or 17 times` in an epoch."""
    if not share.examples:
        return "–"
    least, rest = divmod(share.epoch_examples, share.examples)
    if not rest:
        return "once" if least == 1 else f"{least} times"
    return f"{least} or {least + 1} times"


def ends_sentence(end: LearnedEnd) -> str:
    """Which token ends how many answers."""
    return f"{shown(end.text)} ends {count(end.answers, 'answer')}"


def how_learned(data: ReportData, end: LearnedEnd) -> str:
    """How the model learns the token that ends an answer."""
    if data.dataset.data_kind != "chat":
        return "added after each completion, and learned with it"
    return {
        "template": "the chat template writes it after each answer, and the model learns it",
        "following": "the chat template writes it only before another message; the model learns it "
        "after each answer",
        "added": "the chat template writes no end of an answer, so the end-of-sequence token is "
        "added, and the model learns it",
    }[end.how]


def _conversations(data: ReportData, name: str, counts: SplitCounts) -> str:
    """The number of conversations, if they became more examples."""
    conversations = counts.lines - counts.skipped_lines
    made = data.distinct_examples if name == TRAIN else counts.examples
    if data.dataset.data_kind != "chat" or not 0 < conversations < made:
        return ""
    which = "" if made == counts.examples else f"{made:,} different examples "
    reason = describe_split({end.how for end in data.dataset.ends})
    return f"; {which}from {count(conversations, 'conversation')}, because {reason}"


def _counts(counts: SplitCounts) -> str:
    texts = [f"{counts.tokens:,} tokens"]
    if counts.prompt_tokens:
        texts.append(f"{counts.prompt_tokens:,} of them in prompts")
    if counts.longest_example:
        texts.append(f"the longest example has {counts.longest_example:,}")
    if counts.skipped_lines:
        texts.append(f"{count(counts.skipped_lines, 'invalid line')} skipped")
    return ", ".join(texts)


def parameter_facts(data: ReportData) -> list[Fact]:
    """Every hyperparameter with its effective value, by its name in the FineTune."""
    values = data.run.hyperparameters.to_dict()
    return [Fact(name, _parameter(name, value)) for name, value in values.items()]


def _parameter(name: str, value: str | float) -> str:
    if isinstance(value, str) or name == "seed":  # a seed counts nothing: no thousands separators
        return str(value)
    return f"{value:,}" if isinstance(value, int) else number(value)


def machine_facts(data: ReportData) -> list[Fact]:
    """The machines and the software of the training."""
    run = data.run
    unit = "GPU" if run.accelerator == "nvidia" else "CPU process"
    nodes = count(run.nodes, "node")
    found = [
        Fact("Machines", f"{nodes}, {count(run.processes_per_node, unit)} each"),
        Fact("Precision", run.precision),
        Fact("ZeRO stage", str(run.zero_stage)),
    ]
    found += [Fact(name, version) for name, version in run.versions.items()]
    return found


def process_time(data: ReportData) -> Fact | None:
    """GPU time (or CPU process time) over all recorded attempts; None if there are none."""
    seconds = data.process_seconds
    if seconds is None:
        return None
    kind = "GPU" if data.run.accelerator == "nvidia" else "CPU process"
    attempts = len(data.attempts)
    note = f"over {attempts} attempts" if attempts > 1 else ""
    return Fact(f"{kind} time", duration(seconds), note=note)


def final_metrics(data: ReportData, curves: Curves) -> list[Fact]:
    """The last values of the metrics that were measured."""
    return list(_final_metrics(data, curves))


def _final_metrics(data: ReportData, curves: Curves) -> Iterator[Fact]:
    last = data.epochs[-1] if data.epochs else None
    training = last.training_loss if last else curves.last("training_loss")
    if training is not None:
        yield Fact("Training loss", number(training), note="last epoch" if last else "last step")
    whole, former = _whole_file(last), _whole_file(data.before)
    for column, label in (
        ("validation_loss", "Validation loss"),
        ("validation_token_accuracy", "Validation token accuracy"),
        ("validation_sequence_accuracy", "Validation sequence accuracy"),
    ):
        value = whole.get(column)
        note = "whole file"
        if value is None:
            value, note = curves.last(column), "last batch"
        if value is not None:
            write = percent if column.endswith("accuracy") else number
            if note == "whole file" and former.get(column) is not None:
                note = f"whole file; {write(former[column])} before"
            yield Fact(label, write(value), note=note)
    for name in curves.columns:
        value = curves.last(name) if name.startswith(CLASSIFICATION) else None
        if value is not None:
            label = f"Classification {metric_label(name)}"
            text = percent(value) if 0 <= value <= 1 else number(value)
            yield Fact(label, text, note="whole file")


def _whole_file(last: EpochMetrics | None) -> dict[str, float | None]:
    """The metrics of an epoch by column of results.csv."""
    if last is None:
        return {}
    return {
        "validation_loss": last.validation_loss,
        "validation_token_accuracy": last.validation_token_accuracy,
        "validation_sequence_accuracy": last.validation_sequence_accuracy,
    }
