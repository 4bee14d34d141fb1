"""The results file: one row for each measurement, and one at the end of each part.

Rows are only appended. A part that runs again gets a higher attempt number, and only the rows of
its last attempt on the same card and version of torch count.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]

Status = Literal["passed", "missed", "failed", "timed out", "skipped"]
DONE: tuple[Status, ...] = ("passed", "missed", "skipped")  # `--resume` does not repeat these


class Skipped(Exception):  # noqa: N818 - not an error: the part does not apply here
    """The part cannot run here, and this does not count as a failure."""


@dataclass(frozen=True)
class Measurement:
    """One figure of a part. A part whose figure misses its target ends as `missed`.

    value: NaN or infinite if a computation is broken, which is null in the file.

    target: for example `<= 0.01`; None: for information. details: what another part needs to
    interpret the figure.
    """

    name: str
    value: float
    unit: str = ""
    target: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_met(self) -> bool:
        """Whether the value is within the target; a NaN never is."""
        if self.target is None:
            return True
        sign, wanted = self.target.split()
        if sign == ">=":
            return self.value >= float(wanted)
        return self.value <= float(wanted)


@dataclass(frozen=True)
class Origin:
    """Where the rows come from."""

    card: str
    torch: str


class Results:
    """The rows in the file, and the ones of this machine."""

    def __init__(self, path: Path, origin: Origin) -> None:
        self._path = path
        self.origin = origin

    def rows(self) -> list[Row]:
        """All rows of this card and version of torch, the oldest first."""
        mine = {"card": self.origin.card, "torch": self.origin.torch}
        return [row for row in read(self._path) if mine.items() <= row.items()]

    def last(self, part: str) -> list[Row]:
        """The rows of the last attempt of a part."""
        rows = [row for row in self.rows() if row["part"] == part]
        number = max((row["attempt"] for row in rows), default=0)
        return [row for row in rows if row["attempt"] == number]

    def next_attempt(self, part: str) -> int:
        return max((row["attempt"] for row in self.last(part)), default=0) + 1

    def end(self, part: str) -> Row | None:
        """The row that ended the last attempt of a part; None: it never ran, or has no end."""
        return next((row for row in self.last(part) if "status" in row), None)

    def pending(self, parts: Iterable[str]) -> list[str]:
        """The parts that have not run, or whose last attempt failed."""
        return [
            part for part in parts if (end := self.end(part)) is None or end["status"] not in DONE
        ]

    def add(self, part: str, attempt: int, measurement: Measurement) -> None:
        """Append a figure."""
        row = {
            "name": measurement.name,
            "value": measurement.value if math.isfinite(measurement.value) else None,
            "unit": measurement.unit,
            "target": measurement.target,
            "is_met": measurement.is_met,
            "details": measurement.details,
        }
        self._append(part, attempt, row)

    def finish(
        self, part: str, attempt: int, status: Status, seconds: float, message: str = ""
    ) -> None:
        """Append the end of an attempt."""
        row = {"status": status, "seconds": round(seconds, 1), "message": message}
        self._append(part, attempt, row)

    def _append(self, part: str, attempt: int, values: Row) -> None:
        """Replace the file at once, so that a crash at any time leaves all former rows."""
        row = {
            "part": part,
            "attempt": attempt,
            "card": self.origin.card,
            "torch": self.origin.torch,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **values,
        }
        rows = [*read(self._path), row]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        new.write_text('{"rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")
        new.replace(self._path)


def read(path: Path) -> list[Row]:
    """The rows of a file; none if it does not exist. Raises ValueError for another file."""
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text())["rows"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is not a results file of bench.gpu. Name another file."
        ) from error
    return list(rows)
