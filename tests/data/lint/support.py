"""Inspections of small files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetune_data.lint.fixes import Fix
from finetune_data.lint.inspection import Inspection, inspect
from finetune_data.lint.remarks import Remark
from finetune_data.read.examples import Example
from finetune_data.read.reader import Reader
from finetune_data.rewrite.rewriting import rewrite, to_line
from tests.data.builders import read, reader

Pair = tuple[str, str]


def jsonl(pairs: list[Pair]) -> bytes:
    from finetune_data.read.examples import Row

    return b"".join(to_line(Row(1, *pair)) for pair in pairs)


def inspect_pairs(
    pairs: list[Pair], validation: list[Pair] | None = None, **options: Any
) -> tuple[Inspection, Reader]:
    training = reader(jsonl(pairs))
    held_out = [reader(jsonl(validation))] if validation is not None else []
    return inspect([training], held_out, **options), training


def remark(inspection: Inspection, check: str) -> Remark:
    found = [one for one in inspection.remarks if one.check == check]
    assert len(found) == 1, [one.check for one in inspection.remarks]
    return found[0]


def checks(inspection: Inspection) -> set[str]:
    return {one.check for one in inspection.remarks}


def fixed(training: Reader, fixes: list[Fix], folder: Path) -> list[Example]:
    """The examples after the fixes, written and read again."""
    [written] = rewrite([training], fixes, folder, "a")
    return [one for one in read(written.path.read_bytes()) if hasattr(one, "extra")]  # type: ignore[misc]


def recommended(inspection: Inspection) -> list[Fix]:
    """The fixes that --yes accepts."""
    return [fix for fix in inspection.fixes if fix.is_recommended and not fix.loses]
