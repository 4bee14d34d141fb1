"""Proposed changes: ask about them, accept them by flags, or list them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from finetune_cli.commands.prepare_data.screen import FindingsScreen
from finetune_data.lint.fixes import Fix
from finetune_data.lint.inspection import Inspection


def choose_fixes(
    screen: FindingsScreen,
    inspection: Inspection,
    *,
    yes: bool,
    wanted: Sequence[str],
    unwanted: Sequence[str],
) -> list[Fix]:
    """The accepted changes. --yes accepts changes without data loss; a terminal asks about all."""
    check_fix_names(inspection, wanted)
    accepted: list[Fix] = []
    for fix in inspection.fixes:
        if fix.name in unwanted:
            continue
        note = _loss_note(fix)
        if fix.name in wanted or (yes and fix.is_recommended and not fix.loses):
            accepted.append(fix)
            screen.say(f"accepted: {fix.proposal}{note}")
        elif yes or not screen.can_ask:
            screen.say(f"skipped: {fix.proposal}{note}; --fix {fix.name} accepts it")
        elif screen.ask(f"{fix.proposal}?{note}", fix.is_recommended and not fix.loses):
            accepted.append(fix)
    return accepted


def check_fix_names(inspection: Inspection, wanted: Sequence[str]) -> None:
    """Raise click.BadParameter for a change that is not proposed."""
    known = {fix.name for fix in inspection.fixes}
    for name in wanted:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise click.BadParameter(
                f"{name} is not a proposed change; proposed: {listed}", param_hint="--fix"
            )


def list_fixes(screen: FindingsScreen, inspection: Inspection) -> None:
    """Print each proposed change and the flag that accepts it."""
    for fix in inspection.fixes:
        how = f"--fix {fix.name} accepts it"
        if fix.is_recommended and not fix.loses:
            how = f"--yes or {how}"
        screen.say(f"proposed: {fix.proposal}{_loss_note(fix)}; {how}")


def _loss_note(fix: Fix) -> str:
    return " (loses data)" if fix.loses else ""
