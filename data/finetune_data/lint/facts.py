"""What is known about the data once all of it was seen: what checks decide by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_data.lint.fingerprints import Fingerprints

Kind = Literal["open-ended generation", "classification", "conditional generation", "chat"]
Profile = Literal["auto", "completion", "chat"]
LABELS = 512  # distinct completions that are remembered by their text
LABEL_CHARACTERS = 200


@dataclass(frozen=True)
class Facts:
    """Of the training files."""

    kind: Kind
    examples: int
    rows: Fingerprints
    labels: dict[str, int]  # text of each class to its rows; {} unless it is a classification
    has_style: bool  # --profile completion: the style rules hold for the whole file
    context: int | None = None


def tell_kind(rows: Fingerprints, prompts: int, distinct: int, *, is_chat: bool) -> Kind:
    """As the old tool told them apart: few distinct completions are classes.

    prompts: rows whose prompt is not empty; distinct: completions.
    """
    if is_chat:
        return "chat"
    if len(rows) and not prompts:
        return "open-ended generation"
    if 1 < distinct < len(rows) / 3:
        return "classification"
    return "conditional generation"
