"""Output for users: a table and colors on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_cli.terminal import console, output
from finetune_data.read.findings import counted, shown

if TYPE_CHECKING:
    from finetune_data.lint.inspection import Inspection
    from finetune_data.lint.remarks import Remark
    from finetune_data.read.records import Description
    from finetune_data.rewrite.rewriting import Written

COLORS = {"error": "bold red", "warning": "yellow", "advice": "cyan", "info": "dim"}
BAR = 24  # characters of the longest bar
CLASSES = 12  # shown in the summary; the others are counted
SHOWN_FINDINGS = 20  # invalid lines that are shown


class FindingsScreen(console.Screen):
    """Prints findings; asks questions only if stdin and stdout are terminals."""

    @property
    def can_ask(self) -> bool:
        return sys.stdin.isatty() and self.is_pretty

    def warn(self, text: str) -> None:
        """Print a line to stderr."""
        self.note(text, "red")

    def ask(self, question: str, default: bool) -> bool:
        return output.confirm(question, default=default)

    # --- findings ---------------------------------------------------------------------------

    def file(self, description: Description) -> None:
        """Print one line for a file, then how it was read."""
        if not description.format:
            self.say(f"{Path(description.name).name}", "bold")
            return  # empty, or not a data file: the findings contain the cause
        packed = f", {description.compression}" if description.compression else ""
        columns = ", ".join(shown(name) for name in description.columns[:8])
        more = ", …" if len(description.columns) > 8 else ""
        self.say(f"{Path(description.name).name}", "bold")
        shape = f"; {description.shape}" if description.shape else ""
        self.say(f"  {description.format}{packed}{shape}; columns {columns}{more}")
        if len(description.sheets) > 1:
            others = ", ".join(shown(name) for name in description.sheets)
            self.say(
                f"  sheet {shown(description.sheet or '')} of {others} (--sheet selects another)"
            )
        if description.ignored:
            ignored = ", ".join(shown(name) for name in description.ignored[:8])
            self.say(f"  ignored columns: {ignored}")
        for note in description.notes:
            self.say(f"  {note}")

    def findings(self, inspection: Inspection) -> None:
        """Print invalid lines first, then the remarks, the most severe first."""
        for finding in inspection.findings[:SHOWN_FINDINGS]:
            if not finding.fatal:  # a remark reports it
                self.say(f"  {finding}", "red")
        more = inspection.wrong + inspection.refused - SHOWN_FINDINGS
        if more > 0:
            self.say(f"  … and {more:,} more", "red")
        if not inspection.remarks:
            self.say("No problems found.", "green")
            return
        remarks = inspection.remarks
        if self.is_pretty:
            self.grid([_row(remark) for remark in remarks])
            self.say()
            return
        for remark in remarks:
            self.say(f"{remark.level}: {remark.message}{_where(remark)}")
            for sample in remark.samples:
                self.say(f"    {sample}")

    def summary(self, inspection: Inspection) -> None:
        """Print the kind and amount of data, and its classes and lengths as bars."""
        validation = (
            f", {inspection.validation_examples:,} for validation"
            if inspection.validation_examples
            else ""
        )
        tokens = f", {inspection.tokens:,} tokens" if inspection.tokens is not None else ""
        if not inspection.examples:
            return
        self.say()
        amount = f"{counted(inspection.examples, 'example')}{validation}{tokens}"
        self.say(f"{inspection.kind}: {amount}", "bold")
        if inspection.classes:
            listed = [(shown(label), count) for label, count in inspection.classes[:CLASSES]]
            more = len(inspection.classes) - CLASSES
            self._bars(f"{len(inspection.classes)} classes", listed)
            if more > 0:
                self.say(f"  … and {more} more")
        if inspection.lengths:
            self._bars(f"lengths in {inspection.length_unit}", inspection.lengths)
        self.say()

    def _bars(self, title: str, rows: Sequence[tuple[str, int]]) -> None:
        most = max((count for _, count in rows), default=0) or 1
        width = max(len(label) for label, _ in rows)
        self.say(f"  {title}", "dim")
        for label, count in rows:
            bar = "█" * max(1 if count else 0, round(BAR * count / most))
            self.say(f"  {label:>{width}}  {bar if self.is_pretty else ''} {count:,}".rstrip())

    # --- results ----------------------------------------------------------------------------

    def written(self, written: Sequence[Written]) -> None:
        for file in written:
            self.say(f"wrote {file.path}: {counted(file.examples, 'example')}", "green")

    def code(self, title: str, text: str) -> None:
        """Print a title and lines for copying."""
        self.say()
        self.say(title, "bold")
        for line in text.splitlines():
            self.say(f"  {line}")


def _row(remark: Remark) -> tuple[console.Cell, console.Cell]:
    """The level of a remark, and its message, places, and samples."""
    samples = [(f"\n{output.message_text(sample)}", "dim") for sample in remark.samples]
    body = [(output.message_text(remark.message), ""), (_where(remark), "dim"), *samples]
    return [(remark.level, COLORS[remark.level])], body


def _where(remark: Remark) -> str:
    if not remark.places:
        return ""
    more = ", …" if remark.count > len(remark.places) else ""
    return f" ({', '.join(remark.places)}{more})"
