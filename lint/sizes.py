"""Checks the number of Python files in each product folder and the length of each product file."""

from collections.abc import Iterator
from pathlib import Path

from lint.problem import ROOT, Problem, product_packages

MOST_FILES = 20
MOST_LINES = 400


def check_sizes(root: Path = ROOT) -> Iterator[Problem]:
    """Yield each product folder and product file that exceeds its limit."""
    for package in product_packages(root):
        for folder in sorted({path.parent for path in package.rglob("*.py")}):
            files = sorted(folder.glob("*.py"))
            name = folder.relative_to(root).as_posix()
            if len(files) > MOST_FILES:
                yield Problem(
                    name,
                    1,
                    f"{len(files)} Python files in one folder, the limit is {MOST_FILES}. "
                    "Group them into packages.",
                )
            for path in files:
                lines = len(path.read_text(encoding="utf-8").splitlines())
                if lines > MOST_LINES:
                    yield Problem(
                        f"{name}/{path.name}",
                        MOST_LINES + 1,
                        f"{lines} lines, the limit is {MOST_LINES}. Split the file.",
                    )
