"""Checks of rows against each other: copies, contradictions, and overlap with validation."""

from __future__ import annotations

from finetune_data.lint.check import Check
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import LeaveOut, row_mask
from finetune_data.lint.remarks import PLACES, Remark
from finetune_data.read.findings import counted, has_or_have


class Duplicates(Check):
    """Later rows that equal an earlier row. Removing them loses nothing but their weight."""

    def remarks(self, facts: Facts) -> list[Remark]:
        copies = facts.rows.copies()
        count = len(copies.later)
        if not count:
            return []
        pairs = zip(copies.later[:PLACES], copies.first[:PLACES], strict=True)
        places = [f"{facts.rows.place(a)} repeats {facts.rows.place(b)}" for a, b in pairs]
        is_one = count == 1
        return [
            Remark(
                "duplicates",
                "warning",
                "1 row is a copy of an earlier row"
                if is_one
                else f"{count:,} rows are copies of earlier rows",
                count,
                tuple(places),
                fix=LeaveOut(
                    "duplicates",
                    "Remove the copy" if is_one else f"Remove the {count:,} copies",
                    row_mask(copies.later, facts.examples),
                    loses=False,
                    is_recommended=True,
                ),
            )
        ]


class Conflicts(Check):
    """Prompts with more than one completion."""

    def remarks(self, facts: Facts) -> list[Remark]:
        prompts, rows = facts.rows.conflicts()
        if not prompts:
            return []
        return [
            Remark(
                "conflicts",
                "warning" if facts.kind == "classification" else "advice",
                f"{counted(prompts, 'prompt')} {has_or_have(prompts)} more than one completion: "
                "the model cannot get all of them right",
                len(rows),
                tuple(facts.rows.place(row) for row in rows[:PLACES]),
            )
        ]


class Overlap(Check):
    """Validation rows that are also in the training data: they measure memorization."""

    def remarks(self, facts: Facts) -> list[Remark]:
        if facts.validation is None or not len(facts.validation.rows):
            return []
        validation = facts.validation.rows
        rows = validation.shared_with(facts.rows)
        prompts = validation.prompts_shared_with(facts.rows)
        remarks = []
        if len(rows):
            trained = facts.rows.shared_with(validation)
            remarks.append(
                Remark(
                    "overlap",
                    "warning",
                    f"{counted(len(rows), 'row')} of the validation data "
                    f"{'is' if len(rows) == 1 else 'are'} also in the training data: the "
                    "validation metrics will be too good",
                    len(rows),
                    tuple(f"validation {validation.place(row)}" for row in rows[:PLACES]),
                    fix=LeaveOut(
                        "overlap",
                        f"Remove {counted(len(trained), 'row')} from the training data",
                        row_mask(trained, facts.examples),
                    ),
                )
            )
        if len(prompts) > len(rows) and facts.kind != "open-ended generation":
            more = len(prompts) - len(rows)
            message = (
                f"{counted(more, 'validation row')} {has_or_have(more)} a prompt that is in the "
                "training data with another completion"
            )
            remarks.append(Remark("overlap-prompts", "advice", message, more))
        return remarks
