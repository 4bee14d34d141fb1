"""`finetune list`: one line each, the columns of `kubectl get finetunes`."""

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
SOMETIMES = frozenset({"PROGRESS", "LOSS", "LEFT", "FINE-TUNED MODEL"})


@click.command()
@click.option("-A", "--all-namespaces", is_flag=True, help="Those of all namespaces.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only with these labels.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only in this state."
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
    """The fine-tunes of a namespace, the oldest first."""
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
        screen.note(f"There are no {kind}fine-tunes in {where}.")
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
    """What only a running or a finished one has is left out where there is none."""
    return heading not in SOMETIMES or any(cells[index] for cells in rows)


def row(item: dict[str, Any], now: datetime) -> tuple[str, ...]:
    """The cells of one fine-tune; a status of another version leaves cells empty."""
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
