"""The tokens of examples, and the examples that the trainer refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune_api.errors import FailureError
from finetune_data.lint.columns import Columns
from finetune_data.lint.lengths import Lengths
from finetune_data.read.findings import Finding

if TYPE_CHECKING:
    from finetune_data.tokenize.acceptance import Acceptance


class TokenCounts:
    """Tokenizes the training or the validation examples as the prepare Job does.

    files: the names of the files, for findings; none if there is only one
    """

    def __init__(self, acceptance: Acceptance, files: Sequence[str] = ()) -> None:
        self._acceptance = acceptance
        self._files = files
        self.context = acceptance.context
        self.lengths = Lengths()  # of the training examples that the trainer gets
        self.refused: list[tuple[int, Finding]] = []  # with their ordinals
        self.failure: str | None = None  # the reason why no example can be used

    def observe(self, columns: Columns) -> None:
        if self.failure is not None:
            return
        try:
            self._observe(columns)
        except FailureError as error:  # the base model has no chat template, or too few tokens
            self.failure = error.failure.message

    def _observe(self, columns: Columns) -> None:
        encoded = self._acceptance.tokenizer.encode(columns.examples)
        accepted: list[int] = []
        highest = 0
        for index, (example, found) in enumerate(zip(columns.examples, encoded, strict=True)):
            finding = self._acceptance.refusal(example, found)
            if finding is not None:
                if self._files:
                    finding = finding.in_file(self._files[columns.file])
                self.refused.append((columns.first + index, finding))
            elif not isinstance(found, Finding):
                accepted += (len(training.tokens) for training in found)
                highest = max(highest, *(max(training.tokens) for training in found))
        self._acceptance.check_vocabulary(highest)
        self.lengths.observe(accepted)
