"""results.csv as events of the fine-tuning API: one for each row."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_api.wire import JsonObject

STEP = "step"
_STEP = re.compile(r"[0-9]{1,12}")
# The names of OpenAI's fine-tuning API for columns; others keep their own.
_NAMES = {
    "training_loss": "train_loss",
    "training_token_accuracy": "train_mean_token_accuracy",
    "validation_loss": "valid_loss",
    "validation_token_accuracy": "valid_mean_token_accuracy",
}


@dataclass(frozen=True)
class MetricsRow:
    """A row of results.csv. Its cells are read when it is shown."""

    step: int
    columns: Sequence[str]
    line: str

    @property
    def data(self) -> JsonObject:
        """The numbers of the row by name, without the empty cells."""
        cells = zip(self.columns, self.line.split(","), strict=True)
        numbers = {_NAMES.get(name, name): _number(text) for name, text in cells if name != STEP}
        known = {name: number for name, number in numbers.items() if number is not None}
        return {STEP: self.step} | known

    def describe(self, steps: int | None) -> str:
        """One sentence. steps: of the whole training."""
        data = self.data
        losses = (("training loss", "train_loss"), ("validation loss", "valid_loss"))
        found = ", ".join(f"{words}={data[name]:.4g}" for words, name in losses if name in data)
        return f"Step {self.step}{f'/{steps}' if steps else ''}{f': {found}' if found else ''}"


def read_rows(content: bytes) -> list[MetricsRow]:
    """The complete rows, by step. What is no row is skipped: the file is in a user's bucket."""
    header, *lines = content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n")
    columns = tuple(header.split(","))
    if STEP not in columns:
        return []
    position = columns.index(STEP)
    rows: dict[int, MetricsRow] = {}
    for line in lines:
        cells = line.split(",", position + 1)
        if line.count(",") == len(columns) - 1 and _STEP.fullmatch(cells[position]):
            step = int(cells[position])
            rows[step] = MetricsRow(step, columns, line)
    return [rows[step] for step in sorted(rows)]


def _number(text: str) -> float | int | None:
    if _STEP.fullmatch(text):
        return int(text)
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
