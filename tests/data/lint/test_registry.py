"""Every check is in the registry, and a new one needs nothing else."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import partial
from importlib import import_module

from finetune_data.lint import checks, registry
from finetune_data.lint.check import Check
from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.remarks import Remark, RowPlaces
from tests.data.lint.support import inspect_pairs, remark


def classes_of(registered: object) -> object:
    return registered.func if isinstance(registered, partial) else registered


def checks_in_modules() -> Iterator[type[Check]]:
    for module in pkgutil.iter_modules(checks.__path__):
        for value in vars(import_module(f"finetune_data.lint.checks.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Check) and value is not Check:
                yield value


def test_every_check_is_registered() -> None:
    registered = {classes_of(make) for make in registry.CHECKS}
    assert set(checks_in_modules()) == registered
    assert {classes_of(make) for make in registry.JOB_CHECKS} <= registered


def test_the_checks_of_the_job_need_only_the_facts() -> None:
    for make in registry.JOB_CHECKS:
        assert type(make()).observe is Check.observe


class LongPrompts(Check):
    """The example of CONTRIBUTING.md, as a test: prompts over ten characters."""

    applies_to = "rows"

    def __init__(self) -> None:
        self._found = RowPlaces()

    def observe(self, columns: Columns) -> None:
        for example, prompt in zip(columns.examples, columns.prompts, strict=True):
            if len(prompt) > 10:
                self._found.add(f"line {example.line}")

    def remarks(self, facts: Facts) -> list[Remark]:
        if not self._found.count:
            return []
        message = f"{self._found.count} of {facts.examples} prompts are long"
        return [Remark("long-prompts", "advice", message, self._found.count, self._found.places)]


def test_a_new_check_needs_only_an_entry_in_the_registry() -> None:
    registered = (*registry.CHECKS, LongPrompts)
    found, _ = inspect_pairs([("a long prompt", "x"), ("short", "y")], registered=registered)
    assert remark(found, "long-prompts").places == ("line 1",)
