"""`finetune list`: one line for each fine-tune, with the columns of `kubectl get finetunes`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, as_list, show_objects
from finetune_cli.terminal.format import loss_text, parse_time, short_age, time_left

STATES = ("pending", "running", "succeeded", "failed", "cancelled")
HEADINGS = ("NAME", "STATE", "MODEL", "PROGRESS", "LOSS", "LEFT", "AGE", "FINE-TUNED MODEL")
OPTIONAL = frozenset({"PROGRESS", "LOSS", "LEFT", "FINE-TUNED MODEL"})


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="List the fine-tunes in all namespaces.")
@click.option(
    "-l", "--selector", default="", metavar="LABELS", help="Label selector, as in kubectl."
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    help="List only fine-tunes in this state. May be repeated.",
)
@output_flag
@cluster_flags
def command(
    *,
    all_namespaces: bool,
    selector: str,
    states: tuple[str, ...],
    output: str | None,
    target: ClusterTarget,
) -> None:
    """List the fine-tunes in a namespace, oldest first."""
    cluster = connect(target)
    found = cluster.finetunes.list(all_namespaces=all_namespaces, selector=selector)
    items = [item for item in found if not states or _state(item) in states]
    if output:
        show_objects(as_list(items), output)
        return
    screen = Screen()
    if not items:
        where = "any namespace" if all_namespaces else f"namespace {cluster.namespace!r}"
        kind = f"{' or '.join(states)} " if states else ""
        screen.note(f"No {kind}fine-tunes found in {where}.")
        return
    now = datetime.now(UTC)
    rows = [row(item, now) for item in items]
    if all_namespaces:
        spaces = [item["metadata"]["namespace"] for item in items]
        rows = [(space, *cells) for space, cells in zip(spaces, rows, strict=True)]
    headings = ("NAMESPACE", *HEADINGS) if all_namespaces else HEADINGS
    shown = [index for index, name in enumerate(headings) if _is_shown(name, index, rows)]
    cut = [[cells[index] for index in shown] for cells in (headings, *rows)]
    screen.table(cut[0], cut[1:], elastic="MODEL")


def _is_shown(heading: str, index: int, rows: Sequence[Sequence[str]]) -> bool:
    """Whether to show a column; optional columns are hidden if all of their cells are empty."""
    return heading not in OPTIONAL or any(cells[index] for cells in rows)


def row(item: dict[str, Any], now: datetime) -> tuple[str, ...]:
    """The cells of one fine-tune; unknown values of a status are empty."""
    status = item.get("status") or {}
    progress = status.get("progress") or {}
    loss = progress.get("loss")
    created = parse_time(item["metadata"].get("creationTimestamp"))
    is_over = _state(item) in {"succeeded", "failed", "cancelled"}
    return (
        item["metadata"]["name"],
        _state(item),
        str(item.get("spec", {}).get("model", "")),
        str(progress.get("percent") or ""),
        loss_text(loss) if isinstance(loss, int | float) else "",
        "" if is_over else time_left(progress.get("eta"), now).removesuffix(" left"),
        short_age((now - created).total_seconds()) if created else "",
        str(status.get("fineTunedModel") or ""),
    )


def _state(item: dict[str, Any]) -> str:
    return str((item.get("status") or {}).get("state") or "pending")
