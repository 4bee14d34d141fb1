"""Checks of a classification: classes that training lacks, small classes, and similar names."""

from __future__ import annotations

from finetune_data.lint.check import Check
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import Respell
from finetune_data.lint.remarks import PLACES, Remark
from finetune_data.read.findings import shown

FEW_IN_A_CLASS = 100
IMBALANCE = 20  # times the smallest class
CLASSES_AT_MOST = 500


class UnseenClasses(Check):
    """Classes that only the validation data has."""

    def remarks(self, facts: Facts) -> list[Remark]:
        validation = facts.validation
        if validation is None or not facts.labels:
            return []
        labels = validation.labels.counts
        unseen = [label for label in labels if label not in facts.labels]
        if not unseen:
            return []
        is_one = len(unseen) == 1
        listed = ", ".join(shown(label) for label in unseen[:PLACES])
        more = ", …" if len(unseen) > PLACES else ""
        return [
            Remark(
                "unseen-classes",
                "warning",
                f"{len(unseen):,} {'class is' if is_one else 'classes are'} only in the validation "
                f"data, and the model never learns {'it' if is_one else 'them'}: {listed}{more}; "
                f"{fix_for_unseen(len(unseen))} the validation data",
                sum(labels[label] for label in unseen),
                tuple(f"validation {validation.rows.first_place(it)}" for it in unseen[:PLACES]),
            )
        ]


def fix_for_unseen(classes: int) -> str:
    """What to do about classes that only the validation data has; the data's name follows."""
    it, its = ("it", "its") if classes == 1 else ("them", "their")
    return f"add training examples of {it}, or remove {its} rows from"


class ClassBalance(Check):
    """Too few rows of a class, very uneven classes, and classes that people consider one."""

    applies_to = "rows"

    def remarks(self, facts: Facts) -> list[Remark]:
        if facts.kind != "classification":
            return []
        counts = facts.rows.class_counts()
        remarks = []
        few = int((counts < FEW_IN_A_CLASS).sum())
        if few:
            message = (
                f"{few} of {len(counts)} classes have fewer than {FEW_IN_A_CLASS} examples (the "
                f"smallest has {counts[-1]:,}): use at least {FEW_IN_A_CLASS} per class"
            )
            remarks.append(Remark("few-in-class", "advice", message))
        if counts[0] > IMBALANCE * counts[-1]:
            message = (
                f"the largest class has {counts[0]:,} rows and the smallest {counts[-1]:,}: "
                "accuracy hides the errors in small classes, so look at F1"
            )
            remarks.append(Remark("imbalance", "advice", message))
        if len(counts) > CLASSES_AT_MOST:
            message = f"there are {len(counts):,} classes: use at most {CLASSES_AT_MOST}"
            remarks.append(Remark("many-classes", "advice", message))
        return remarks + _similar_names(facts.labels)


def _similar_names(labels: dict[str, int]) -> list[Remark]:
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(label.split()).lower(), []).append(label)
    similar = [group for group in groups.values() if len(group) > 1]
    spellings: dict[str, str] = {}
    for group in similar:
        best = max(group, key=lambda label: labels[label])
        spellings |= {label: best for label in group if label != best}
    changes = ", ".join(f"{shown(label)} as {shown(best)}" for label, best in spellings.items())
    fix = Respell("same-spelling", f"Write {changes}", spellings)
    return [
        Remark(
            "classes-alike",
            "warning",
            f"classes that differ only in case or white space: {', '.join(map(shown, group))}",
            sum(labels[label] for label in group),
            fix=None if index else fix,  # one fix changes all groups
        )
        for index, group in enumerate(similar)
    ]
