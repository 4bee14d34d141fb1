"""What the doctor says of one piece. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "unknown", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One piece: how it is, and what to do where something is missing.

    unknown: this person may not look, which keeps nobody from fine-tuning.
    """

    level: Level
    what: str
    detail: str
    remedy: str = ""

    def record(self) -> dict[str, Any]:
        """For JSON and YAML."""
        found = {"check": self.what, "level": self.level, "detail": self.detail}
        return {**found, "remedy": self.remedy} if self.remedy else found
