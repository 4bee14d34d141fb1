"""What a check has to say, and what could be done about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from finetune_data.lint.fixes import Fix
from finetune_data.read.findings import shown

Level = Literal["error", "warning", "advice", "info"]
LEVELS = ("error", "warning", "advice", "info")  # the gravest first
PLACES = 5
SAMPLES = 3
SAMPLE_CHARACTERS = 70


@dataclass(frozen=True)
class Remark:
    """One finding about the data as a whole."""

    check: str  # "duplicates"
    level: Level
    message: str  # one plain sentence
    count: int = 0  # rows that it is about; 0: the file
    places: tuple[str, ...] = ()  # "line 17": the first few
    samples: tuple[str, ...] = ()  # the first few, quoted
    fix: Fix | None = None


class Places:
    """The first few rows that a check has met."""

    def __init__(self) -> None:
        self.count = 0
        self._places: list[str] = []
        self._samples: list[str] = []

    def add(self, place: str, sample: str | None = None) -> None:
        self.count += 1
        if len(self._places) < PLACES:
            self._places.append(place)
        if sample is not None and len(self._samples) < SAMPLES:
            self._samples.append(shown(sample, SAMPLE_CHARACTERS))

    def add_all(self, places: Iterable[str]) -> None:
        for place in places:
            self.add(place)

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(self._places)

    @property
    def samples(self) -> tuple[str, ...]:
        return tuple(self._samples)


class HasPlace(Protocol):
    """Names the place of a row by its ordinal."""

    def place(self, ordinal: int) -> str:
        """`line 17`, with the file's name where there are several."""
