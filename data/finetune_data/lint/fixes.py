"""Changes that can be made while data files are rewritten. Pure: an example in, one or none out.

Each fix has a name, a proposal in words, and an order: fixes are applied in that order, whatever
the order in which they were accepted. A fix says whether it loses anything, and whether it is
recommended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune_data.read.examples import Example, Row

Field = Literal["prompt", "completion"]
Side = Literal["training", "validation"]
Mask = npt.NDArray[np.bool_]


def row_mask(ordinals: npt.NDArray[np.int64] | Sequence[int], examples: int) -> Mask:
    """A mask of `examples` rows that is true for the given ordinals."""
    mask = np.zeros(examples, bool)
    mask[ordinals] = True
    return mask


@dataclass(frozen=True)
class LeaveOutWrong:
    """Lines that are no example are never written: to accept this fix is to agree to that."""

    name: str
    proposal: str
    loses: bool = True
    is_recommended: bool = False
    order: int = 0

    def apply(self, ordinal: int, example: Example) -> Example | None:
        return example


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """Leave out rows of one side by their ordinals. `mask` has a value for each of its examples."""

    name: str
    proposal: str
    mask: Mask = field(repr=False)
    side: Side = "training"
    loses: bool = True
    is_recommended: bool = False
    order: int = 1

    def apply(self, ordinal: int, example: Example) -> Example | None:
        return None if self.mask[ordinal] else example


class TextFix:
    """A change of the texts of one column. Chats stay unchanged."""

    field: Field

    @property
    def is_of_completions(self) -> bool:
        return self.field == "completion"

    def change(self, text: str) -> str:
        raise NotImplementedError

    def apply(self, ordinal: int, example: Example) -> Example | None:
        if not isinstance(example, Row):
            return example
        if self.field == "prompt":
            return example._replace(prompt=self.change(example.prompt))
        return example._replace(completion=self.change(example.completion))


@dataclass(frozen=True)
class StripPrefix(TextFix):
    """Remove a text from the start of every row that has it; `keep` stays in its place."""

    name: str
    proposal: str
    field: Field
    text: str
    keep: str = ""
    loses: bool = True
    is_recommended: bool = False
    order: int = 2

    def change(self, text: str) -> str:
        rest = self.keep + text.removeprefix(self.text)
        has_it = text.startswith(self.text) and (rest or self.field == "prompt")
        return rest if has_it else text


@dataclass(frozen=True)
class LowerCase(TextFix):
    """Convert a column to lower case."""

    name: str
    proposal: str
    field: Field
    loses: bool = True
    is_recommended: bool = False
    order: int = 3

    def change(self, text: str) -> str:
        return text.lower()


@dataclass(frozen=True)
class Respell(TextFix):
    """Replace completions by the spellings that the mapping has for them."""

    name: str
    proposal: str
    spellings: dict[str, str]
    field: Field = "completion"
    loses: bool = True
    is_recommended: bool = True
    order: int = 3

    def change(self, text: str) -> str:
        return self.spellings.get(text, text)


@dataclass(frozen=True)
class AddText(TextFix):
    """Add a text at the start or the end of every row that does not have it there."""

    name: str
    proposal: str
    field: Field
    text: str
    at: Literal["start", "end"] = "end"
    loses: bool = False
    is_recommended: bool = True

    @property
    def order(self) -> int:
        return 4 if self.at == "start" else 5

    def change(self, text: str) -> str:
        if self.at == "start":
            return text if text.startswith(self.text) else self.text + text
        return text if text.endswith(self.text) else text + self.text


Fix = LeaveOutWrong | LeaveOut | StripPrefix | LowerCase | Respell | AddText


def fixes_of(side: Side, fixes: Sequence[Fix]) -> list[Fix]:
    """The fixes that apply to the training or to the validation files."""
    return [fix for fix in fixes if not isinstance(fix, LeaveOut) or fix.side == side]


def apply_all(fixes: Sequence[Fix], ordinal: int, example: Example) -> Example | None:
    """The example after all fixes, which must be sorted by `order`."""
    changed: Example | None = example
    for fix in fixes:
        if changed is None:
            return None
        changed = fix.apply(ordinal, changed)
    return changed
