"""One finding of a check, and the location of the repository."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, order=True)
class Problem:
    """A finding; `path` is relative to the repository and `line` starts at 1."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def product_packages(root: Path = ROOT) -> list[Path]:
    """The folders of the product packages, such as api/finetune_api, in alphabetical order."""
    return sorted(path.parent for path in root.glob("*/finetune_*/__init__.py"))
