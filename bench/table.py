"""The lines of a benchmark's table: medians, their spread, and whether a target is met."""

from __future__ import annotations

from dataclasses import dataclass

from bench.machine import spread

PEERS = ("TRL", "Trainer", "the script", "kwok")  # the names of other programs start with these


@dataclass(frozen=True)
class Line:
    """One line. The target applies to the ratio, for example `>= 1.1`; None: for information."""

    part: str
    name: str
    values: list[float]  # one per round
    unit: str
    ratio: float | None = None
    target: str | None = None

    @property
    def is_ours(self) -> bool:
        return not self.name.startswith(PEERS)

    @property
    def is_met(self) -> bool | None:
        if self.ratio is None or self.target is None:
            return None
        sign, wanted = self.target.split()
        return self.ratio >= float(wanted) if sign == ">=" else self.ratio <= float(wanted)


def row(line: Line, *, has_verdict: bool = True) -> str:
    """Return the line as text: verdict, part, name, median and spread, ratio, and target."""
    verdict = {True: "ok  ", False: "MISS", None: "    "}[line.is_met if has_verdict else None]
    shown = f"{spread(line.values)} {line.unit}"
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    return f"  {verdict} {line.part:<13} {line.name:<43} {shown:<34} {ratio:>5} {line.target or ''}"
