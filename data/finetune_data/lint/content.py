"""Rules about what the rows say: copies, contradictions, overlap, classes, too little."""

from __future__ import annotations

import numpy as np

from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import LABEL_CHARACTERS, LABELS, Facts
from finetune_data.lint.fingerprints import Fingerprints, Ordinals
from finetune_data.lint.fixes import LeaveOut, Respell
from finetune_data.lint.remarks import PLACES, Remark
from finetune_data.read.findings import counted, shown

FEW_IN_A_CLASS = 100
FEW_FOR_GENERATION = 500
IMBALANCE = 20  # times the smallest class
CLASSES_AT_MOST = 500


class Labels:
    """The distinct completions by their text, as long as they may be classes.

    Of a chat the last message, where it is all that is learned.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._are_too_many = False

    def look(self, columns: Columns) -> None:
        if self._are_too_many:
            return
        if not columns.has_one_answer_each:
            self._give_up()
            return
        for text in columns.completions:
            if text in self.counts:
                self.counts[text] += 1
            elif len(text) > LABEL_CHARACTERS or len(self.counts) >= LABELS:
                self._give_up()
                return
            else:
                self.counts[text] = 1

    def _give_up(self) -> None:
        self._are_too_many = True
        self.counts.clear()


class EmptyPrompts:
    """Rows without a prompt among rows with one."""

    def __init__(self) -> None:
        self.count = 0
        self._rows = 0

    def look(self, columns: Columns) -> None:
        self._rows += len(columns)
        self.count += columns.prompts.count("")

    def remarks(self, facts: Facts) -> list[Remark]:
        if not self.count or self.count == self._rows:
            return []
        message = f"{counted(self.count, 'row')} of {self._rows:,} without a prompt"
        return [Remark("empty-prompts", "warning", message, self.count)]


def duplicates(facts: Facts) -> list[Remark]:
    """Later rows that are equal to an earlier one. To leave them out loses nothing but weight."""
    copies = facts.rows.copies()
    count = len(copies.later)
    if not count:
        return []
    pairs = zip(copies.later[:PLACES], copies.first[:PLACES], strict=True)
    places = [f"{facts.rows.place(a)} repeats {facts.rows.place(b)}" for a, b in pairs]
    return [
        Remark(
            "duplicates",
            "warning",
            "1 row is a copy of an earlier one"
            if count == 1
            else f"{count:,} rows are copies of earlier ones",
            count,
            tuple(places),
            fix=LeaveOut(
                "duplicates",
                "Leave out the copy" if count == 1 else f"Leave out the {count:,} copies",
                _mask(copies.later, facts.examples),
                loses=False,
                is_recommended=True,
            ),
        )
    ]


def conflicts(facts: Facts) -> list[Remark]:
    """One prompt, several completions."""
    prompts, rows = facts.rows.conflicts()
    if not prompts:
        return []
    return [
        Remark(
            "conflicts",
            "warning" if facts.kind == "classification" else "advice",
            f"{counted(prompts, 'prompt')} {'has' if prompts == 1 else 'have'} more than one "
            "completion: the model can't get both right",
            len(rows),
            tuple(facts.rows.place(row) for row in rows[:PLACES]),
        )
    ]


def overlap(facts: Facts, validation: Fingerprints) -> list[Remark]:
    """Validation rows that are trained on: they measure memory."""
    rows = validation.shared_with(facts.rows)
    prompts = validation.prompts_shared_with(facts.rows)
    remarks = []
    if len(rows):
        trained = facts.rows.shared_with(validation)
        remarks.append(
            Remark(
                "overlap",
                "warning",
                f"{counted(len(rows), 'row')} of the validation data {_stand(len(rows))} in the "
                "training data as well: validation will look better than it is",
                len(rows),
                tuple(f"validation {validation.place(row)}" for row in rows[:PLACES]),
                fix=LeaveOut(
                    "overlap",
                    f"Leave {counted(len(trained), 'row')} out of the training data",
                    _mask(trained, facts.examples),
                ),
            )
        )
    if len(prompts) > len(rows) and facts.kind != "open-ended generation":
        more = len(prompts) - len(rows)
        remarks.append(
            Remark(
                "overlap-prompts",
                "advice",
                f"{counted(more, 'validation row')} {_have(more)} a prompt of the training data "
                "with another completion",
                more,
            )
        )
    return remarks


def unseen_classes(facts: Facts, labels: dict[str, int], validation: Fingerprints) -> list[Remark]:
    """Classes that only validation has. labels: its classes by their text, to their rows."""
    unseen = [label for label in labels if label not in facts.labels]
    if not facts.labels or not unseen:
        return []
    one = len(unseen) == 1
    listed = ", ".join(shown(label) for label in unseen[:PLACES])
    more = ", …" if len(unseen) > PLACES else ""
    return [
        Remark(
            "unseen-classes",
            "warning",
            f"{len(unseen):,} {'class stands' if one else 'classes stand'} only in the validation "
            f"data, and {'is' if one else 'are'} never learned: {listed}{more}; "
            f"{give_or_take(len(unseen))} the validation data",
            sum(labels[label] for label in unseen),
            tuple(f"validation {validation.first_place(label)}" for label in unseen[:PLACES]),
        )
    ]


def give_or_take(classes: int) -> str:
    """What to do about classes that only validation has."""
    it, its = ("it", "its") if classes == 1 else ("them", "their")
    return f"give training examples of {it}, or take {its} rows out of"


def class_balance(facts: Facts) -> list[Remark]:
    """Too few of a class, very uneven classes, and classes that are one class to a person."""
    if facts.kind != "classification":
        return []
    counts = facts.rows.class_counts()
    remarks = []
    few = int((counts < FEW_IN_A_CLASS).sum())
    if few:
        remarks.append(
            Remark(
                "few-in-class",
                "advice",
                f"{few} of {len(counts)} classes have under {FEW_IN_A_CLASS} examples, the "
                f"smallest {counts[-1]:,}: at least {FEW_IN_A_CLASS} a class are advised",
            )
        )
    if counts[0] > IMBALANCE * counts[-1]:
        remarks.append(
            Remark(
                "imbalance",
                "advice",
                f"the largest class has {counts[0]:,} rows, the smallest {counts[-1]:,}: "
                "accuracy will hide how the small ones do; look at F1",
            )
        )
    if len(counts) > CLASSES_AT_MOST:
        message = f"{len(counts):,} classes are many: up to {CLASSES_AT_MOST} are advised"
        remarks.append(Remark("many-classes", "advice", message))
    return remarks + _alike(facts.labels)


def _alike(labels: dict[str, int]) -> list[Remark]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.split()).lower(), []).append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    spellings: dict[str, str] = {}
    for group in alike:
        best = max(group, key=lambda label: labels[label])
        spellings |= {label: best for label in group if label != best}
    changes = ", ".join(f"{shown(label)} as {shown(best)}" for label, best in spellings.items())
    fix = Respell("same-spelling", f"Write {changes}", spellings)
    return [
        Remark(
            "classes-alike",
            "warning",
            f"classes that differ only in case or space: {', '.join(map(shown, group))}",
            sum(labels[label] for label in group),
            fix=None if index else fix,
        )
        for index, group in enumerate(alike)
    ]


def amount(facts: Facts) -> list[Remark]:
    """Too few examples for generation: advice, never an error."""
    if not facts.examples:
        return [Remark("no-examples", "error", "there is no example to train on")]
    if facts.kind == "classification" or facts.examples >= FEW_FOR_GENERATION:
        return []
    return [
        Remark(
            "few-examples",
            "advice",
            f"{counted(facts.examples, 'example')}: at least {FEW_FOR_GENERATION} are advised for "
            "generation, and every doubling helps about as much as the one before",
        )
    ]


def base_model(facts: Facts) -> list[Remark]:
    """Which base model fits."""
    if facts.kind != "classification":
        return []
    message = (
        "this is a classification: try the smallest base model first, keep a validation file, and "
        "set hyperparameters.computeClassificationMetrics"
    )
    return [Remark("base-model", "advice", message)]


def _mask(ordinals: Ordinals, examples: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    mask = np.zeros(examples, bool)
    mask[ordinals] = True
    return mask


def _stand(count: int) -> str:
    return "stands" if count == 1 else "stand"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
