"""Changes that may be made while the data is written anew. Pure: an example in, one or none out.

Each has a name, a proposal for people, whether anything is lost by it, whether it is recommended,
and an order: fixes are applied by that, whatever the order of acceptance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from finetune_data.read.examples import Example, Row

Field = Literal["prompt", "completion"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LeaveOutWrong:
    """Lines that are no example can't be written anyway: accepting this says that they may go."""

    name: str
    proposal: str
    loses: bool = True
    is_recommended: bool = False
    order: int = 0

    def apply(self, ordinal: int, example: Example) -> Example | None:
        return example


@dataclass(frozen=True, eq=False)
class LeaveOut:
    """Rows by their ordinals; `mask` has a value for each example that was read."""

    name: str
    proposal: str
    mask: Mask = field(repr=False)
    loses: bool = True
    is_recommended: bool = False
    order: int = 1

    def apply(self, ordinal: int, example: Example) -> Example | None:
        return None if self.mask[ordinal] else example


class TextFix:
    """A change of one column's texts; chats stay as they are."""

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
    """Take a text off the beginning of every row that has it; `keep` stays there."""

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
    """A column in lower case."""

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
    """Completions that are in `spellings` become what stands there."""

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
class AddPrefix(TextFix):
    """Put a text before every row that does not begin with it."""

    name: str
    proposal: str
    field: Field
    text: str
    loses: bool = False
    is_recommended: bool = True
    order: int = 4

    def change(self, text: str) -> str:
        return text if text.startswith(self.text) else self.text + text


@dataclass(frozen=True)
class AddSuffix(TextFix):
    """Put a text behind every row that does not end with it."""

    name: str
    proposal: str
    field: Field
    text: str
    loses: bool = False
    is_recommended: bool = True
    order: int = 5

    def change(self, text: str) -> str:
        return text if text.endswith(self.text) else text + self.text


Fix = LeaveOutWrong | LeaveOut | StripPrefix | LowerCase | Respell | AddPrefix | AddSuffix


def apply_all(fixes: Sequence[Fix], ordinal: int, example: Example) -> Example | None:
    """The example after all fixes, which must be sorted by `order`."""
    changed: Example | None = example
    for fix in fixes:
        if changed is None:
            return None
        changed = fix.apply(ordinal, changed)
    return changed
