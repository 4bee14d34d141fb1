"""The prepare Job's decisions about whole files: a refusal, or advice. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from finetune_api.outcome import Failure
from finetune_api.tasks import Classification
from finetune_data import failures
from finetune_data.lint.checks.classes import fix_for_unseen
from finetune_data.lint.facts import LABELS, DataSummary, Facts
from finetune_data.lint.registry import JOB_CHECKS
from finetune_data.lint.remarks import Remark
from finetune_data.read.findings import TOO_LONG, FileFindings, counted, shown
from finetune_data.tokenize.dataset import LearnedEnd
from finetune_data.tokenize.spans import describe_split

CLASSES_SHOWN = 10


class CheckedFile(NamedTuple):
    """One data file after it was read."""

    findings: FileFindings
    rows: int  # valid lines, without those that are too long
    model: str
    context: int  # tokens

    @property
    def lines(self) -> int:
        """The number of lines that are not empty."""
        return self.rows + self.findings.count


def find_refusal(file: CheckedFile, tolerance: float) -> Failure | None:
    """The reason why a file cannot be used, with its first findings; None if it can be used.

    tolerance: the share of the lines that may be wrong.
    """
    found = file.findings
    where = f"{found.param} {found.uri}"
    lines = [str(finding) for finding in found.first]

    def invalid(message: str) -> Failure:
        return failures.invalid_file(message, found.param, lines)

    if found.fatal is not None:
        place = f", {found.fatal.place}" if found.fatal.place else ""
        return invalid(f"{where}{place}: {found.fatal.message}")
    if not file.lines:
        return invalid(f"{where}: the file is empty; expected one example per line")
    if file.rows and found.count / file.lines <= tolerance + 1e-9:
        return None
    too_long = found.codes[TOO_LONG]
    if too_long > file.lines / 2:
        longer = next((one for one in found.first if one.code == TOO_LONG), found.first[0])
        return invalid(
            f"{where}: most of its examples ({too_long:,} of {file.lines:,}) have more than "
            f"{file.context:,} tokens, the context length of {file.model}: shorten them, or use a "
            f"model with a longer context; the first is {longer}"
        )
    first = found.first[0]
    allowed = f", and dataTolerance allows {tolerance:.3g} of them" if tolerance else ""
    return invalid(
        f"{where}, {first.place}: {first.message} ({counted(found.count, 'wrong line')} of "
        f"{file.lines:,}{allowed}; see data-report.jsonl)"
    )


def skipped_lines_advice(file: CheckedFile, tolerance: float) -> list[str]:
    """A sentence about the wrong lines that the tolerance allows."""
    found = file.findings
    if not found.count:
        return []
    return [
        f"Skipped {found.count:,} of {file.lines:,} lines of {found.param}, as dataTolerance "
        f"{tolerance:g} allows (the first: {found.first[0]}); see data-report.jsonl."
    ]


def template_advice(file: CheckedFile, examples: int, ends: Sequence[LearnedEnd]) -> list[str]:
    """Sentences about what the chat template makes of the conversations of a file.

    examples: the training examples. ends: what ends the answers in them.
    """
    advice = []
    if examples > file.rows:
        template = f"the chat template of {file.model}"
        advice.append(
            f"{counted(file.rows, 'conversation')} of {file.findings.param} became {examples:,} "
            f"training examples, because {describe_split({end.how for end in ends}, template)}."
        )
    advice += [
        f"The chat template of {file.model} writes no token that ends an answer: {shown(end.text)} "
        "is learned as its end."
        for end in ends
        if end.how == "added"
    ]
    return advice


def mixed_kinds_advice(kinds: Mapping[str, bool]) -> list[str]:
    """A sentence about training files of both kinds. kinds: whether each file has chats."""
    chats = [param for param, has_chats in kinds.items() if has_chats]
    rows = [param for param, has_chats in kinds.items() if not has_chats]
    if not chats or not rows:
        return []
    return [
        f"{chats[0]} has chats, and {rows[0]} has prompts and completions: the model learns both "
        "forms, and only chats get the chat template. Use one form for all files unless you want "
        "both."
    ]


def data_advice(
    training: DataSummary, validation: DataSummary | None, *, declares_classes: bool = False
) -> list[str]:
    """Sentences about copies, contradictions, overlap, and amounts; the most important first.

    declares_classes: the spec says that the completions are classes.
    """
    kind = training.kind
    labels = training.labels.counts if declares_classes or kind == "classification" else {}
    facts = Facts(training=training, kind=kind, labels=labels, validation=validation)
    return [_sentence(remark) for make in JOB_CHECKS for remark in make().remarks(facts)]


def _sentence(remark: Remark) -> str:
    place = f" ({remark.places[0]})" if remark.places else ""
    return f"{remark.message[:1].upper()}{remark.message[1:]}{place}."


def check_classes(
    declared: Classification, training: DataSummary, validation: DataSummary | None
) -> Failure | None:
    """Whether the classes of the files contradict the spec.

    The check runs here, so that the fine-tune does not fail after its first epoch.
    """
    prefix = "hyperparameters.classification"
    if validation is None:
        return failures.invalid_classes(
            "validationFile", "classification metrics need a validationFile"
        )
    classes = {**validation.labels.counts, **training.labels.counts}
    count = len(classes)
    if not training.labels.counts or not validation.labels.counts:
        param = "hyperparameters.computeClassificationMetrics"
        message = f"the completions are not classes: more than {LABELS} different or long ones"
        if training.is_chat or validation.is_chat:
            message += ", or chats in which the model learns more than the last message"
        return failures.invalid_classes(param, message)
    listed = _listed(list(classes))
    unseen = [label for label in validation.labels.counts if label not in training.labels.counts]
    listed += _only_in_validation(unseen, validation)
    hint = f"{fix_for_unseen(len(unseen))} validationFile" if unseen else None
    if declared.n_classes is not None and declared.n_classes != count:
        return failures.invalid_classes(
            f"{prefix}NClasses",
            f"classificationNClasses is {declared.n_classes}, but the files have {count} classes: "
            f"{listed}",
            hint,
        )
    if declared.positive_class is None:
        return None
    if count != 2:
        return failures.invalid_classes(
            f"{prefix}PositiveClass",
            f"a positive class requires two classes, but the files have {count}: {listed}",
            hint,
        )
    if declared.positive_class not in validation.labels.counts:
        return failures.invalid_classes(
            f"{prefix}PositiveClass",
            f"the positive class {shown(declared.positive_class)} is not among the completions of "
            f"validationFile: {', '.join(map(shown, validation.labels.counts))}",
        )
    return None


def _listed(labels: Sequence[str]) -> str:
    more = ", …" if len(labels) > CLASSES_SHOWN else ""
    return ", ".join(shown(label) for label in labels[:CLASSES_SHOWN]) + more


def _only_in_validation(unseen: list[str], validation: DataSummary) -> str:
    """The classes that training lacks, each with its first line."""
    if not unseen:
        return ""
    places = ", ".join(
        f"{shown(label)} ({validation.rows.first_place(label)})" for label in unseen[:CLASSES_SHOWN]
    )
    more = ", …" if len(unseen) > CLASSES_SHOWN else ""
    return f"; {places}{more} {'is' if len(unseen) == 1 else 'are'} only in validationFile"
