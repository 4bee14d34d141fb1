"""The remarks that checks report, and the first rows that a remark is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_data.lint.fixes import Fix

Level = Literal["error", "warning", "advice", "info"]
LEVELS = ("error", "warning", "advice", "info")  # the most severe first
PLACES = 5


@dataclass(frozen=True)
class Remark:
    """One finding about the data as a whole."""

    check: str  # the id, such as "duplicates"
    level: Level
    message: str  # one plain sentence, without its period
    count: int = 0  # rows that it is about; 0: the whole file
    places: tuple[str, ...] = ()  # the first few, such as "line 17"
    samples: tuple[str, ...] = ()  # the first few texts, quoted
    fix: Fix | None = None


class RowPlaces:
    """Counts the rows that a check reports, and remembers the places of the first few."""

    def __init__(self) -> None:
        self.count = 0
        self._places: list[str] = []

    def add(self, place: str) -> None:
        self.count += 1
        if len(self._places) < PLACES:
            self._places.append(place)

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(self._places)
