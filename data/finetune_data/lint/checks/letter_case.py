"""The check of upper case."""

from __future__ import annotations

from finetune_data.lint.check import Check
from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import Field, LowerCase
from finetune_data.lint.remarks import Remark

UPPER = bytes(range(ord("A"), ord("Z") + 1))
LOWER = bytes(range(ord("a"), ord("z") + 1))


class UpperCase(Check):
    """Columns that are mostly upper case: tokenizers encode lower-case words in fewer tokens."""

    applies_to = "rows"

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._upper = 0
        self._lower = 0

    def observe(self, columns: Columns) -> None:
        data = columns.joined(self.field).encode()
        self._upper += len(data) - len(data.translate(None, UPPER))
        self._lower += len(data) - len(data.translate(None, LOWER))

    def remarks(self, facts: Facts) -> list[Remark]:
        if 2 * self._upper <= self._lower:
            return []
        return [
            Remark(
                f"{self.field}-upper-case",
                "advice",
                f"more than a third of the letters in {self.field}s are upper case",
                fix=LowerCase(
                    f"{self.field}-lower-case",
                    f"Convert every {self.field} to lower case",
                    self.field,
                ),
            )
        ]
