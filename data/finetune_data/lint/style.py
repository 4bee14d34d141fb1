"""Style rules of prompt/completion data: separator, stop sequence, common texts, space, case.

With modern tokenizers and chat templates a learned end-of-sequence token does what separator and
stop sequence did. So they are asked of data that follows them in part already (a mix is worse than
either), and of all data under the profile `completion`. Prompts without any separator get advice:
nothing but their form tells a model that was made for plain text where they end.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_data.lint.columns import NUL, Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.fixes import AddPrefix, AddSuffix, Field, LowerCase, StripPrefix
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
LONG_PREFIX = 12
SHORT_PREFIX = 5
MOST = 0.5  # share of the rows from which on a file follows a rule in part

UPPER = bytes(range(ord("A"), ord("Z") + 1))
LOWER = bytes(range(ord("a"), ord("z") + 1))


class CommonEnding:
    """The text that all prompts, or all completions, of what was looked at end with."""

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self.first: str | None = None  # of all texts
        self.has_others = False
        self._common: str | None = None

    @property
    def text(self) -> str:
        """A known separator, else whole words that no sentence ends with; empty for none."""
        ending = _from_word_start(self._common or "")
        if self.field == "prompt" and (known := next(filter(ending.endswith, SEPARATORS), None)):
            return known  # what stands before it in every row is a part of the prompts
        return "" if set(ending) <= set(".?!… ") else ending

    def look(self, columns: Columns) -> None:
        texts = columns.texts(self.field)
        if not texts:
            return
        self.first = texts[0] if self.first is None else self.first
        self.has_others = self.has_others or any(text != self.first for text in texts)
        self._common = _common_suffix(texts, self._common)


class Ending:
    """What all prompts (the separator) or all completions (the stop sequence) end with."""

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._candidates = SEPARATORS if field == "prompt" else STOPS
        self._absent = set(self._candidates)
        self._ends = dict.fromkeys(self._candidates, 0)
        self._rows = 0
        self._ending = CommonEnding(field)
        self._inside = 0  # rows that have it elsewhere, counted for this ending since row 0
        self._is_stale = False  # it became shorter after rows were counted

    @property
    def wants_another_look(self) -> bool:
        """The ending, or that there is none, is known only now, and earlier rows were searched
        for something else."""
        return self._is_stale

    def begin_another_look(self) -> None:
        self._is_stale = False
        self._inside = 0

    @property
    def common(self) -> str:
        """The shared ending; empty for none."""
        return self._ending.text

    def look(self, columns: Columns, *, again: bool = False) -> None:
        texts, joined = columns.texts(self.field), columns.joined(self.field)
        if not texts:
            return
        if not again:
            before = self.common
            self._ending.look(columns)
            self._count(texts)
            self._is_stale |= self._rows > len(texts) and before != self.common
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
            return [self._all_alike()]
        if self.common:
            return self._of_common(self.common)
        partly = max(self._candidates, key=lambda candidate: self._ends[candidate])
        share = self._ends[partly] / max(1, self._rows)
        is_mark = self.field == "prompt" or partly not in {"\n", "."}  # prose ends so by itself
        if share >= MOST and is_mark:
            return [self._of_part(partly)]
        if facts.has_style:
            return [self._propose()]
        return [self._advise()] if self.field == "prompt" else []

    def _all_alike(self) -> Remark:
        what = "nothing tells them apart" if self.field == "prompt" else "there is nothing to learn"
        return Remark(
            f"{self.field}-identical",
            "error",
            f"all {self.field}s are the same: {what}",
            self._rows,
            samples=(shown(self._ending.first or "", 70),),
        )

    def _of_common(self, ending: str) -> list[Remark]:
        role = "separator" if self.field == "prompt" else "stop sequence"
        found = Remark(
            f"{self.field}-ending",
            "info",
            f"all {self.field}s end with {shown(ending)}, the {role}",
            samples=(),
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
                    f"{shown(ending)}, which ends every {self.field}, stands inside of some as "
                    f"well ({self._inside:,} times): the model may stop too early",
                    self._inside,
                )
            )
        return remarks

    def _of_part(self, ending: str) -> Remark:
        missing = self._rows - self._ends[ending]
        return Remark(
            f"{self.field}-ending-mixed",
            "warning",
            f"most {self.field}s end with {shown(ending)}, and {missing:,} do not",
            missing,
            fix=AddSuffix(
                f"{self.field}-ending",
                f"Add {shown(ending)} where it is missing",
                self.field,
                ending,
            ),
        )

    def _advise(self) -> Remark:
        return Remark(
            "prompt-ending-missing",
            "advice",
            "prompts have no common ending: nothing tells the model where one ends and the answer "
            "begins; `finetune prepare-data --profile completion` adds a separator",
        )

    def _propose(self) -> Remark:
        free = [candidate for candidate in self._candidates if candidate in self._absent]
        ending = free[0] if free else self._candidates[-1]
        role = "separator" if self.field == "prompt" else "stop sequence"
        return Remark(
            f"{self.field}-ending-missing",
            "warning",
            f"{self.field}s have no common ending: a {role} shows the model where they end",
            self._rows,
            fix=AddSuffix(
                f"{self.field}-ending",
                f"Add the {role} {shown(ending)} to every {self.field}",
                self.field,
                ending,
            ),
        )


class Beginning:
    """What all prompts, or all completions, begin with."""

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._common: str | None = None
        self._rows = 0
        self._differ = False
        self._first: str | None = None

    @property
    def common(self) -> str:
        return _to_word_end(self._common or "")

    def look(self, columns: Columns) -> None:
        texts = columns.texts(self.field)
        if not texts:
            return
        self._rows += len(texts)
        self._first = texts[0] if self._first is None else self._first
        self._differ = self._differ or any(text != self._first for text in texts)
        common = self._common
        if common is None or not all(text.startswith(common) for text in texts):
            shared = _shared(min(texts), max(texts))
            self._common = shared if common is None else _shared(common, shared)

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
                f"all {self.field}s begin with {shown(common)}: what is always the same teaches "
                "nothing, and costs tokens each time",
                self._rows,
                fix=StripPrefix(
                    f"{self.field}-prefix",
                    f"Take {shown(common)} off every {self.field}",
                    self.field,
                    common,
                    keep,
                ),
            )
        ]


class Case:
    """Columns that are mostly upper case: tokenizers know words in lower case better."""

    def __init__(self, field: Field) -> None:
        self.field: Field = field
        self._upper = 0
        self._lower = 0

    def look(self, columns: Columns) -> None:
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
                    f"Write every {self.field} in lower case",
                    self.field,
                ),
            )
        ]


class LeadingSpace:
    """Completions that begin with a space, as tokens of words in a sentence do."""

    def __init__(self) -> None:
        self._rows = 0
        self._spaced = 0

    def look(self, columns: Columns) -> None:
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
                + (", while most do" if in_part else ""),
                missing,
                fix=AddPrefix(
                    "completion-space",
                    "Put a space before every completion that has none",
                    "completion",
                    " ",
                ),
            )
        ]


def _common_suffix(texts: Sequence[str], known: str | None) -> str:
    """What `known` and all texts end with; None knows nothing yet."""
    if known is None:
        known = texts[0]
    if all(text.endswith(known) for text in texts):
        return known
    ends = [text[-len(known) :][::-1] if known else "" for text in texts]
    return _shared(known[::-1], _shared(min(ends), max(ends)))[::-1]


def _shared(one: str, other: str) -> str:
    """What both begin with."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:index]
    return min(one, other, key=len)


def _from_word_start(text: str) -> str:
    """Without the piece of a word that it may begin with: `tive` of positive and negative."""
    start = 0
    while start < len(text) and (text[start].isalnum() or text[start] == "_"):
        start += 1
    return text[start:]


def _to_word_end(text: str) -> str:
    """Without the piece of a word or number that it may end with."""
    end = len(text)
    while end and (text[end - 1].isalnum() or text[end - 1] == "_"):
        end -= 1
    return text[:end]
