"""The base of all checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from finetune_data.lint.columns import Columns
from finetune_data.lint.facts import Facts
from finetune_data.lint.remarks import Remark

MOST = 0.5  # the share of the rows that shows that a file follows a rule in part
DataForm = Literal["rows", "chats", "any"]


class Check(ABC):
    """One rule about the training data.

    `observe` is called for every batch of the training files, and `remarks` once, at the end. A
    check that needs only the facts overrides only `remarks`.
    """

    applies_to: ClassVar[DataForm] = "any"  # rows are prompts and completions

    def observe(self, columns: Columns) -> None:  # noqa: B027 - most checks need only the facts
        """Remember the values of one batch that `remarks` needs."""

    @abstractmethod
    def remarks(self, facts: Facts) -> list[Remark]:
        """The remarks about the data as a whole, in the order in which they are shown."""

    @property
    def needs_second_pass(self) -> bool:
        """Whether the files must be read again, because `observe` knew too little at first."""
        return False

    def begin_second_pass(self) -> None:  # noqa: B027 - most checks need one pass
        """Prepare for `observe_again`."""

    def observe_again(self, columns: Columns) -> None:  # noqa: B027 - most checks need one pass
        """The second pass over a batch."""

    def applies(self, *, is_chat: bool) -> bool:
        """Whether the check applies to chats, or to prompts and completions."""
        return self.applies_to in {"any", "chats" if is_chat else "rows"}
