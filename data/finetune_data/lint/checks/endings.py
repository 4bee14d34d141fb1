"""The check of the common ending of prompts (the separator) and completions (the stop sequence).

With modern tokenizers and chat templates, a learned end-of-sequence token does what a separator
and a stop sequence did. So the check requires them of data that follows them in part already (a
mix is worse than either), and of all data under the profile `completion`. Prompts without any
separator get advice: for a base model that was made for plain text, only the form of a prompt can
show where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_data.lint.affixes import common_suffix, from_word_start
from finetune_data.lint.check import MOST, Check
from finetune_data.lint.columns import NUL, Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import AddText, Field
from finetune_data.lint.remarks import Remark
from finetune_data.read.findings import shown

SEPARATORS = (
    "\n\n###\n\n",
    "\n\n===\n\n",
    "\n\n---\n\n",
    "\n\n===>\n\n",
    "\n\n--->\n\n",
    " ->",
    "\n\n### =>\n\n",
)
STOPS = ("\n", ".", " END", "***", "+++", "&&&", "$$$", "@@@", "%%%", " [END]")
LONGEST = max(map(len, (*SEPARATORS, *STOPS)))
LONG_ENDING = 10  # characters


class CommonEnding:
    """The text at the end of all prompts, or of all completions, that were observed."""

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self.first: str | None = None  # of all texts
        self.has_others = False
        self._common: str | None = None

    @property
    def text(self) -> str:
        """A known separator, or whole words that do not end a sentence; empty if there is none."""
        ending = from_word_start(self._common or "")
        if self.field == "prompt" and (known := next(filter(ending.endswith, SEPARATORS), None)):
            return known  # a common text before it belongs to the prompts
        return "" if set(ending) <= set(".?!… ") else ending

    def observe(self, columns: Columns) -> None:
        texts = columns.texts(self.field)
        if not texts:
            return
        self.first = texts[0] if self.first is None else self.first
        self.has_others = self.has_others or any(text != self.first for text in texts)
        self._common = common_suffix(texts, self._common)


class Ending(Check):
    """The separator of prompts, or the stop sequence of completions."""

    applies_to = "rows"

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._candidates = SEPARATORS if field == "prompt" else STOPS
        self._absent = set(self._candidates)
        self._ends = dict.fromkeys(self._candidates, 0)
        self._rows = 0
        self._ending = CommonEnding(field)
        self._inside = 0  # occurrences inside of texts, if counted for this ending since row 0
        self._is_stale = False  # it became shorter after rows were counted

    @property
    def needs_second_pass(self) -> bool:
        """Whether earlier rows were searched for an ending that turned out not to be common."""
        return self._is_stale

    def begin_second_pass(self) -> None:
        self._is_stale = False
        self._inside = 0

    @property
    def common(self) -> str:
        """The common ending; empty if there is none."""
        return self._ending.text

    def observe(self, columns: Columns) -> None:
        texts = columns.texts(self.field)
        if not texts:
            return
        before = self.common
        self._ending.observe(columns)
        self._count(texts)
        self._is_stale |= self._rows > len(texts) and before != self.common
        self.observe_again(columns)

    def observe_again(self, columns: Columns) -> None:
        texts, joined = columns.texts(self.field), columns.joined(self.field)
        if not texts:
            return
        if self.common:
            self._inside += max(0, joined.count(self.common) - len(texts))
        else:
            self._absent -= {candidate for candidate in self._absent if candidate in joined}

    def _count(self, texts: Sequence[str]) -> None:
        self._rows += len(texts)
        ends = NUL.join([text[-LONGEST:] for text in texts]) + NUL
        for candidate in self._candidates:
            self._ends[candidate] += ends.count(candidate + NUL)

    def remarks(self, facts: Facts) -> list[Remark]:
        if facts.kind == "open-ended generation" and self.field == "prompt":
            return []
        if self.field == "completion" and facts.kind != "conditional generation":
            return []
        if not self._ending.has_others and self._rows > 1:
            return [self._identical()]
        if self.common:
            return self._common_ending(self.common)
        partly = max(self._candidates, key=lambda candidate: self._ends[candidate])
        share = self._ends[partly] / max(1, self._rows)
        is_mark = self.field == "prompt" or partly not in {"\n", "."}  # prose ends like that anyway
        if share >= MOST and is_mark:
            return [self._partial_ending(partly)]
        if facts.has_style:
            return [self._missing()]
        return [self._missing_advice()] if self.field == "prompt" else []

    def _identical(self) -> Remark:
        is_prompt = self.field == "prompt"
        what = "the model cannot distinguish the rows" if is_prompt else "there is nothing to learn"
        return Remark(
            f"{self.field}-identical",
            "error",
            f"all {self.field}s are identical: {what}",
            self._rows,
            samples=(shown(self._ending.first or "", 70),),
        )

    def _common_ending(self, ending: str) -> list[Remark]:
        role = "separator" if self.field == "prompt" else "stop sequence"
        found = Remark(
            f"{self.field}-ending",
            "info",
            f"all {self.field}s end with {shown(ending)}, the {role}",
        )
        remarks = [found]
        if len(ending) > LONG_ENDING:
            remarks.append(
                Remark(
                    f"{self.field}-ending-long",
                    "advice",
                    f"the ending {shown(ending)} is long: a shorter one costs fewer tokens",
                )
            )
        if self._inside:
            remarks.append(
                Remark(
                    f"{self.field}-ending-inside",
                    "warning",
                    f"{shown(ending)}, which ends every {self.field}, also occurs inside of some "
                    f"({self._inside:,} times): the model can stop too early",
                    self._inside,
                )
            )
        return remarks

    def _partial_ending(self, ending: str) -> Remark:
        missing = self._rows - self._ends[ending]
        return Remark(
            f"{self.field}-ending-mixed",
            "warning",
            f"most {self.field}s end with {shown(ending)}, but {missing:,} do not",
            missing,
            fix=AddText(
                f"{self.field}-ending",
                f"Add {shown(ending)} where it is missing",
                self.field,
                ending,
            ),
        )

    def _missing_advice(self) -> Remark:
        return Remark(
            "prompt-ending-missing",
            "advice",
            "prompts have no common ending, so the model cannot tell where a prompt ends and the "
            "answer begins; `finetune prepare-data --profile completion` adds a separator",
        )

    def _missing(self) -> Remark:
        free = [candidate for candidate in self._candidates if candidate in self._absent]
        ending = free[0] if free else self._candidates[-1]
        role = "separator" if self.field == "prompt" else "stop sequence"
        return Remark(
            f"{self.field}-ending-missing",
            "warning",
            f"{self.field}s have no common ending: a {role} shows the model where they end",
            self._rows,
            fix=AddText(
                f"{self.field}-ending",
                f"Add the {role} {shown(ending)} to every {self.field}",
                self.field,
                ending,
            ),
        )
