"""Checks of the start of texts: a common prefix, and the space before completions."""

from __future__ import annotations

from finetune_data.lint.affixes import shared_prefix, to_word_end
from finetune_data.lint.check import MOST, Check
from finetune_data.lint.columns import NUL, Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import AddText, Field, StripPrefix
from finetune_data.lint.remarks import Remark
from finetune_data.read.findings import shown

LONG_PREFIX = 12  # characters
SHORT_PREFIX = 5


class CommonPrefix(Check):
    """A text at the start of all prompts, or of all completions."""

    applies_to = "rows"

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._common: str | None = None
        self._rows = 0
        self._differ = False
        self._first: str | None = None

    @property
    def common(self) -> str:
        return to_word_end(self._common or "")

    def observe(self, columns: Columns) -> None:
        texts = columns.texts(self.field)
        if not texts:
            return
        self._rows += len(texts)
        self._first = texts[0] if self._first is None else self._first
        self._differ = self._differ or any(text != self._first for text in texts)
        common = self._common
        if common is None or not all(text.startswith(common) for text in texts):
            shared = shared_prefix(min(texts), max(texts))
            self._common = shared if common is None else shared_prefix(common, shared)

    def remarks(self, facts: Facts) -> list[Remark]:
        common = self.common
        least = LONG_PREFIX if self.field == "prompt" else SHORT_PREFIX
        if not self._differ or self._rows < 2 or len(common.strip()) < least:
            return []
        keep = " " if self.field == "completion" and common.startswith(" ") else ""
        return [
            Remark(
                f"{self.field}-prefix",
                "advice",
                f"all {self.field}s begin with {shown(common)}: a constant text teaches the model "
                "nothing and costs tokens in every row",
                self._rows,
                fix=StripPrefix(
                    f"{self.field}-prefix",
                    f"Remove {shown(common)} from the start of every {self.field}",
                    self.field,
                    common,
                    keep,
                ),
            )
        ]


class LeadingSpace(Check):
    """Completions that begin with a space, as the tokens of words in a sentence do."""

    applies_to = "rows"

    def __init__(self) -> None:
        self._rows = 0
        self._spaced = 0

    def observe(self, columns: Columns) -> None:
        self._rows += len(columns)
        joined = columns.joined_completions
        self._spaced += sum(joined.count(NUL + space) for space in (" ", "\n", "\t"))

    def remarks(self, facts: Facts) -> list[Remark]:
        missing = self._rows - self._spaced
        in_part = self._spaced >= MOST * self._rows
        if not missing or not (facts.has_style or in_part):
            return []
        return [
            Remark(
                "completion-space",
                "warning",
                f"{missing:,} completions do not begin with a space"
                + (", but most do" if in_part else ""),
                missing,
                fix=AddText(
                    "completion-space",
                    "Add a space before every completion that has none",
                    "completion",
                    " ",
                    at="start",
                ),
            )
        ]
