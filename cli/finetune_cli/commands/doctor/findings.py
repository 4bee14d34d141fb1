"""The result of one check. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "unknown", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """The result of one check, and the fix for a problem.

    unknown: the user has no permission to check it, or the cluster has no information about it;
    fine-tuning may still work.
    """

    level: Level
    check: str
    detail: str
    remedy: str = ""

    def record(self) -> dict[str, Any]:
        """For JSON and YAML."""
        found = {"check": self.check, "level": self.level, "detail": self.detail}
        return {**found, "remedy": self.remedy} if self.remedy else found
