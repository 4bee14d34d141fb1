"""Writes the prepared files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from finetune_api.names import EXIT_USER
from finetune_cli.commands.prepare_data.screen import SHOWN_FINDINGS, FindingsScreen
from finetune_data.lint.fixes import Fix, TextFix, fixes_of
from finetune_data.lint.inspection import Inspection
from finetune_data.read.findings import counted
from finetune_data.read.reader import Reader
from finetune_data.rewrite.rewriting import (
    Written,
    kept_by,
    refusals_after,
    rewrite,
    rows_after,
)
from finetune_data.rewrite.train_validation_split import plan_split

if TYPE_CHECKING:
    from finetune_data.tokenize.acceptance import Acceptance

LEAST_TO_SPLIT = 10  # examples


@dataclass(frozen=True)
class Destination:
    """The folder and the common start of the names of the prepared files."""

    folder: Path
    stem: str


def ask_for_split(screen: FindingsScreen, inspection: Inspection) -> bool:
    """Ask whether to split off a validation file, if there is none."""
    if inspection.validation_examples or inspection.examples < LEAST_TO_SPLIT:
        return False
    if not screen.can_ask:
        return False
    return screen.ask("Split off a validation file?", inspection.kind == "classification")


def require_accepted(
    screen: FindingsScreen,
    readers: Sequence[Reader],
    changes: Sequence[Fix],
    acceptance: Acceptance,
) -> None:
    """Exit if the changes make examples that the trainer refuses, such as too long ones."""
    if not any(isinstance(fix, TextFix) for fix in changes):
        return  # the inspection has checked these examples
    refused = 0
    for reader, finding in refusals_after(readers, changes, acceptance):
        refused += 1
        if refused <= SHOWN_FINDINGS:
            screen.say(f"  {PurePath(reader.source.name).name}, {finding}", "red")
    if refused:
        screen.warn(
            f"Nothing was written. With the accepted changes, {counted(refused, 'example')} cannot "
            "be used with the base model. Skip a change with --skip-fix, or shorten the examples."
        )
        raise SystemExit(EXIT_USER)


def write(
    screen: FindingsScreen,
    training: Sequence[Reader],
    held_out: Sequence[Reader],
    *,
    accepted: Sequence[Fix],
    inspection: Inspection,
    destination: Destination,
    share: float | None,
    seed: int,
) -> list[Written]:
    """Write the prepared files. share: the fraction to split off for validation; None: no split.

    Validation files keep all rows that the trainer can use; only the style of the rows changes.
    """
    split = None
    changes = fixes_of("training", accepted)
    if share is not None:
        split = plan_split(
            rows_after(training, changes, inspection.rows),
            kept_by(changes, inspection.examples),
            share=share,
            seed=seed,
            is_classification=inspection.kind == "classification",
        )
        if split.single_prompt_classes:
            screen.warn(
                "Classes with only one prompt stay in the training file and are not evaluated: "
                f"{split.single_prompt_classes:,}"
            )
    with screen.progress("writing") as progress:
        ending = "_train" if held_out else ""
        written = rewrite(
            training,
            changes,
            destination.folder,
            destination.stem,
            ending=ending,
            split=split,
            progress=progress,
        )
    if held_out:
        style = fixes_of("validation", accepted)
        written += rewrite(held_out, style, destination.folder, destination.stem, ending="_valid")
    return written
