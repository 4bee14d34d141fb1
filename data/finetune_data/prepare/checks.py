"""What the prepare Job says about whole files: refuse, or advise. Pure."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.names import Reason
from finetune_api.outcome import Failure
from finetune_api.tasks import Classification
from finetune_data.lint import content
from finetune_data.lint.content import Labels
from finetune_data.lint.facts import LABELS, Facts, Kind, tell_kind
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.remarks import Remark
from finetune_data.read.findings import TOO_LONG, FileFindings, counted, shown

CLASSES_SHOWN = 10


class CheckedFile(NamedTuple):
    """One data file after it was read."""

    findings: FileFindings
    rows: int  # right lines, too long ones not counted
    model: str
    context: int  # tokens

    @property
    def lines(self) -> int:
        """Lines with something on them."""
        return self.rows + self.findings.count


class Seen(NamedTuple):
    """What is remembered of a file's rows."""

    rows: Fingerprints
    labels: Labels
    prompts: int  # rows whose prompt is not empty
    is_chat: bool
    separator: str = ""  # what all prompts end with

    @property
    def classes(self) -> int | None:
        """None where the completions are no classes."""
        return self.rows.distinct_completions() if self.kind == "classification" else None

    @property
    def kind(self) -> Kind:
        return tell_kind(
            self.rows, self.prompts, self.rows.distinct_completions(), is_chat=self.is_chat
        )


def verdict(file: CheckedFile, tolerance: float) -> Failure | None:
    """Whether the file can be used: None, or why not, with the first findings."""
    found = file.findings
    where = f"{found.param} {found.uri}"
    lines = [str(finding) for finding in found.first]

    def invalid(message: str) -> Failure:
        return Failure(
            code=Reason.INVALID_DATA, message=message, param=found.param, lines=lines or None
        )

    if found.fatal is not None:
        place = f", {found.fatal.place}" if found.fatal.place else ""
        return invalid(f"{where}{place}: {found.fatal.message}")
    if not file.lines:
        return invalid(f"{where}: the file is empty; expected an example a line")
    if file.rows and found.count / file.lines <= tolerance + 1e-9:
        return None
    too_long = found.codes[TOO_LONG]
    if too_long > file.lines / 2:
        longer = next((one for one in found.first if one.code == TOO_LONG), found.first[0])
        return invalid(
            f"{where}: the majority of its examples, {too_long:,} of {file.lines:,}, have more "
            f"than the {file.context:,} tokens that {file.model} takes: shorten them, or take a "
            f"model with a longer context; the first is {longer}"
        )
    first = found.first[0]
    allowed = f", and dataTolerance allows {tolerance:.3g} of them" if tolerance else ""
    return invalid(
        f"{where}, {first.place}: {first.message} ({counted(found.count, 'wrong line')} of "
        f"{file.lines:,}{allowed}; see data-report.jsonl)"
    )


def skipped_advice(file: CheckedFile, tolerance: float) -> list[str]:
    """What a tolerance let pass."""
    found = file.findings
    if not found.count:
        return []
    return [
        f"Wrong lines skipped in {found.param}: {found.count:,} of {file.lines:,}, as "
        f"dataTolerance {tolerance:g} allows (the first: {found.first[0]}); see data-report.jsonl."
    ]


def advise(
    training: Seen, validation: Seen | None, *, classes_are_asked: bool = False
) -> list[str]:
    """Sentences about copies, contradictions, overlap and amounts; the gravest first.

    classes_are_asked: the spec calls the completions classes, whatever they look like.
    """
    rows, kind = training.rows, training.kind
    labels = training.labels.counts if classes_are_asked or kind == "classification" else {}
    facts = Facts(kind=kind, examples=len(rows), rows=rows, labels=labels, has_style=False)
    remarks = [
        *(_beside(facts, validation) if validation is not None else ()),
        *content.duplicates(facts),
        *content.conflicts(facts),
        *content.class_balance(facts),
        *content.amount(facts),
    ]
    return [_sentence(remark) for remark in remarks]


def _beside(facts: Facts, validation: Seen) -> list[Remark]:
    """What only the two files together show."""
    unseen = content.unseen_classes(facts, validation.labels.counts, validation.rows)
    return [*content.overlap(facts, validation.rows), *unseen]


def _sentence(remark: Remark) -> str:
    place = f" ({remark.places[0]})" if remark.places else ""
    return f"{remark.message[:1].upper()}{remark.message[1:]}{place}."


def check_classes(asked: Classification, training: Seen, validation: Seen | None) -> Failure | None:
    """Whether the classes are what the spec says: found now, and not after the first epoch."""
    prefix = "hyperparameters.classification"
    if validation is None:
        return _wrong("validationFile", "classification metrics need a validationFile")
    known = {**validation.labels.counts, **training.labels.counts}
    count = len(known)
    if not training.labels.counts or not validation.labels.counts:
        param = "hyperparameters.computeClassificationMetrics"
        message = f"the completions are no classes: over {LABELS} different or long ones"
        if training.is_chat or validation.is_chat:
            message += ", or chats in which more is learned than the last message"
        return _wrong(param, message)
    listed = ", ".join(shown(label) for label in list(known)[:CLASSES_SHOWN])
    more = ", …" if count > CLASSES_SHOWN else ""
    unseen = [label for label in validation.labels.counts if label not in training.labels.counts]
    more += _only_in_validation(unseen, validation)
    hint = f"{content.give_or_take(len(unseen))} validationFile" if unseen else None
    if asked.n_classes is not None and asked.n_classes != count:
        return _wrong(
            f"{prefix}NClasses",
            f"classificationNClasses is {asked.n_classes}, and the files have {count} classes: "
            f"{listed}{more}",
            hint,
        )
    if asked.positive_class is None:
        return None
    if count != 2:
        return _wrong(
            f"{prefix}PositiveClass",
            f"a positive class needs two classes, and the files have {count}: {listed}{more}",
            hint,
        )
    if asked.positive_class not in validation.labels.counts:
        return _wrong(
            f"{prefix}PositiveClass",
            f"the positive class {shown(asked.positive_class)} is not among the completions of "
            f"validationFile: {', '.join(map(shown, validation.labels.counts))}",
        )
    return None


def _only_in_validation(unseen: list[str], validation: Seen) -> str:
    """Which classes training never shows, each with its first line."""
    if not unseen:
        return ""
    places = ", ".join(
        f"{shown(label)} ({validation.rows.first_place(label)})" for label in unseen[:CLASSES_SHOWN]
    )
    more = ", …" if len(unseen) > CLASSES_SHOWN else ""
    return f"; {places}{more} {'stands' if len(unseen) == 1 else 'stand'} only in validationFile"


def _wrong(param: str, message: str, hint: str | None = None) -> Failure:
    return Failure(code=Reason.INVALID_DATA, message=message, param=param, hint=hint)
