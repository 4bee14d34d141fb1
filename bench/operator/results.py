"""The saved results. A section takes up to an hour, so each one is saved as soon as it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from bench.machine import RESULTS, save
from bench.operator.plot import Curves, draw
from bench.table import Line

NAME = "operator"


@dataclass
class Results:
    """Lines by part and name, each with the day and the load of its run."""

    lines: list[Line] = field(default_factory=list)
    curves: dict[int, Curves] = field(default_factory=dict)  # by size
    _runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, only: Collection[str] | None) -> Self:
        """The saved results, to replace a part of them; empty ones for a run of all sections."""
        path = RESULTS / f"{NAME}.json"
        if not only or not path.exists():
            return cls()
        return cls.parse(json.loads(path.read_text()))

    @classmethod
    def parse(cls, saved: Mapping[str, Any]) -> Self:
        names = [known.name for known in fields(Line)]
        lines = [Line(**{name: item[name] for name in names}) for item in saved["lines"]]
        runs = {
            (item["part"], item["name"]): {key: item[key] for key in ("day", "load") if key in item}
            for item in saved["lines"]
        }
        return cls(lines, {int(size): curves for size, curves in saved["curves"].items()}, runs)

    def replace(self, found: Iterable[Line], load: float) -> None:
        """Replace all lines of the parts that were measured again, in place."""
        new = list(found)
        parts = {line.part for line in new}
        at = next((i for i, line in enumerate(self.lines) if line.part in parts), len(self.lines))
        kept = [line for line in self.lines if line.part not in parts]
        self.lines = [*kept[:at], *new, *kept[at:]]
        run = {"day": f"{datetime.now(UTC):%Y-%m-%d}", "load": load}
        self._runs |= {(line.part, line.name): run for line in new}

    def to_json(self) -> dict[str, Any]:
        lines = [
            {**asdict(line), "is_met": line.is_met, **self._runs.get((line.part, line.name), {})}
            for line in self.lines
        ]
        return {"processors": os.cpu_count(), "lines": lines, "curves": self.curves}

    def save(self, curves: Mapping[int, Curves]) -> str:
        """Write the file and the picture; returns both paths. curves: of this run."""
        self.curves |= curves
        return f"{save(NAME, self.to_json())}, {draw(self.lines, self.curves)}"
