"""Checks the English of documentation, messages, docstrings, and comments against prose.toml."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lint.problem import ROOT, Problem
from lint.prose_text import START, prose_of

ALLOW = "prose: allow"
_INSIDE_WORD = re.compile(r"[\w-]")
GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*)"
RULES = Path(__file__).with_name("prose.toml")
CHECKED = (
    "*.md",
    "Makefile",
    "Dockerfile",
    "pyproject.toml",
    "mkdocs.yml",
    ".pre-commit-config.yaml",
    ".dockerignore",
    ".ci/run",
    "*/finetune_*/**/*.py",
    "charts/**/*.yaml",
    "charts/**/*.md",
    "charts/**/*.txt",
    "crds/*.py",
    "crds/*.yaml",
    "docs/**/*.md",
    "docs/**/*.py",
    "devcluster/*.py",
    "devcluster/**/*.yaml",
    "examples/**/*.py",
    "examples/**/*.yaml",
    "images/*.py",
    "images/*.sh",
    "bench/**/*.py",
    "fuzz/*.py",
    "lint/*.py",
)
# Their sentences come from files that are checked.
GENERATED = ("charts/finetune-operator/files/", "docs/reference/")


@dataclass(frozen=True)
class Rule:
    """A phrase to avoid and its replacement."""

    pattern: re.Pattern[str]
    is_case_sensitive: bool
    use: str
    bad: str
    good: tuple[str, ...]


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule in prose.toml, in its order."""
    table = tomllib.loads(RULES.read_text(encoding="utf-8"))
    return tuple(
        Rule(
            pattern=_compiled(item["pattern"]),
            is_case_sensitive=item["pattern"].startswith("^"),
            use=item["use"],
            bad=item["bad"],
            good=tuple(item.get("good", ())),
        )
        for item in table["rule"]
    )


def _compiled(pattern: str) -> re.Pattern[str]:
    """Translate a rule's pattern; see the head of prose.toml."""
    opening = ""
    if pattern.startswith("^"):
        opening, pattern = rf"(?:{START}|\n[ \t]*\n)\s*", pattern[1:]
    parts = re.split(r"(\(\?<[!=][^)]*\))", pattern)  # a lookbehind has a fixed width
    parts[0::2] = [part.replace(" ", GAP) for part in parts[0::2]]
    parts[1::2] = [part.replace(" ", r"\s") for part in parts[1::2]]
    return re.compile(rf"{opening}(?P<phrase>{''.join(parts)})(?![\w-])")


def check_prose(root: Path = ROOT, only: Iterable[Path] = ()) -> Iterator[Problem]:
    """Yield each phrase to avoid, in all checked files or in those of `only`."""
    for path in sorted(only) or checked_files(root):
        name = path.relative_to(root).as_posix()
        lines = path.read_text(encoding="utf-8").splitlines()
        for line, phrase, use in problems_in(prose_of(path)):
            if not any(ALLOW in text for text in lines[max(line - 2, 0) : line]):
                yield Problem(name, line, f'"{phrase}". Use: {use}.')


def problems_in(prose: str) -> list[tuple[int, str, str]]:
    """The line, phrase, and replacement of each match, by line."""
    lowered = prose.lower()
    found = []
    for rule in rules():
        for match in rule.pattern.finditer(prose if rule.is_case_sensitive else lowered):
            start = match.start("phrase")
            # Tested here because a lookbehind at the head of a pattern slows the search down.
            if start == 0 or not _INSIDE_WORD.match(prose, start - 1):
                phrase = " ".join(match["phrase"].split())
                found.append((prose.count("\n", 0, start) + 1, phrase, rule.use))
    return sorted(found)


def checked_files(root: Path = ROOT) -> list[Path]:
    """Every file with prose that a user or a contributor reads."""
    found = {path for pattern in CHECKED for path in root.glob(pattern) if path.is_file()}
    return sorted(
        path
        for path in found
        if "__pycache__" not in path.parts
        and not path.relative_to(root).as_posix().startswith(GENERATED)
    )
