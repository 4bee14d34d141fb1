"""Facts about the data once all of it was read: the basis of the decisions of checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_data.lint.columns import Columns
from finetune_data.lint.fingerprints import Fingerprints
from finetune_data.lint.token_counts import TokenCounts

Kind = Literal["open-ended generation", "classification", "conditional generation", "chat"]
Profile = Literal["auto", "completion", "chat"]
LABELS = 512  # distinct completions that are remembered by their text
LABEL_CHARACTERS = 200


class Labels:
    """The distinct completions by their text, as long as they can be classes.

    The completion of a chat is its last message, if the model learns nothing else from the chat.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._are_too_many = False

    def observe(self, columns: Columns) -> None:
        if self._are_too_many:
            return
        if not columns.has_one_answer_each:
            self._give_up()
            return
        for text in columns.completions:
            if text in self.counts:
                self.counts[text] += 1
            elif len(text) > LABEL_CHARACTERS or len(self.counts) >= LABELS:
                self._give_up()
                return
            else:
                self.counts[text] = 1

    def _give_up(self) -> None:
        self._are_too_many = True
        self.counts.clear()


class DataSummary:
    """The few bytes per row that are remembered of the training or the validation files."""

    def __init__(self) -> None:
        self.rows = Fingerprints()
        self.labels = Labels()
        self.empty_prompts = 0
        self.is_chat = False

    def observe(self, columns: Columns) -> None:
        self.is_chat = self.is_chat or columns.is_chat
        self.rows.observe(columns)
        self.labels.observe(columns)
        self.empty_prompts += columns.prompts.count("")

    @property
    def kind(self) -> Kind:
        """The task that the data is for, as OpenAI's data preparation tool distinguishes them.

        Few distinct completions are classes.
        """
        if self.is_chat:
            return "chat"
        if len(self.rows) and self.empty_prompts == len(self.rows):
            return "open-ended generation"
        if 1 < self.rows.distinct_completions() < len(self.rows) / 3:
            return "classification"
        return "conditional generation"

    @property
    def classes(self) -> int | None:
        """The number of classes; None unless the data is a classification."""
        return self.rows.distinct_completions() if self.kind == "classification" else None


@dataclass(frozen=True)
class Facts:
    """What checks know about the training files, and about the validation files if there are any.

    `kind` and `labels` are not taken from `training`, because they cost a pass over all rows, and
    because a spec can declare that the completions are classes.
    """

    training: DataSummary
    kind: Kind
    labels: dict[str, int]  # text of each class to its rows; {} unless it is a classification
    validation: DataSummary | None = None
    has_style: bool = False  # --profile completion: the style rules hold for the whole file
    token_counts: TokenCounts | None = None  # of the training rows, if the base model is known
    validation_token_counts: TokenCounts | None = None
    wrong_lines: int = 0
    has_empty_validation: bool = False  # there are validation files, but no example in them

    @property
    def rows(self) -> Fingerprints:
        """The training rows."""
        return self.training.rows

    @property
    def examples(self) -> int:
        """The number of training rows."""
        return len(self.training.rows)
