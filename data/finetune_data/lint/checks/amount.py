"""Checks of the amount of data: too few examples, empty prompts."""

from __future__ import annotations

from finetune_data.lint.check import Check
from finetune_data.lint.facts import Facts
from finetune_data.lint.remarks import Remark
from finetune_data.read.findings import counted, has_or_have

FEW_FOR_GENERATION = 500


class Amount(Check):
    """Too few examples for generation: advice, never an error."""

    def remarks(self, facts: Facts) -> list[Remark]:
        if not facts.examples:
            if facts.wrong_lines:
                return []  # the remark about the wrong lines says it
            return [Remark("no-examples", "error", "there is no example to train on")]
        if facts.has_empty_validation and not facts.wrong_lines:
            message = "there is no example in the validation data"
            return [Remark("no-validation-examples", "error", message)]
        if facts.kind == "classification" or facts.examples >= FEW_FOR_GENERATION:
            return []
        message = (
            f"{counted(facts.examples, 'example')}: use at least {FEW_FOR_GENERATION} for "
            "generation; each doubling of the data improves the model by about the same amount"
        )
        return [Remark("few-examples", "advice", message)]


class EmptyPrompts(Check):
    """Rows without a prompt among rows with one."""

    applies_to = "rows"

    def remarks(self, facts: Facts) -> list[Remark]:
        count = facts.training.empty_prompts
        if not count or count == facts.examples:
            return []
        message = f"{counted(count, 'row')} of {facts.examples:,} {has_or_have(count)} no prompt"
        return [Remark("empty-prompts", "warning", message, count)]


class BaseModelAdvice(Check):
    """The base model that fits a classification."""

    applies_to = "rows"

    def remarks(self, facts: Facts) -> list[Remark]:
        if facts.kind != "classification":
            return []
        message = (
            "the data is a classification: try the smallest base model first, use a validation "
            "file, and set hyperparameters.computeClassificationMetrics"
        )
        return [Remark("base-model", "advice", message)]
