"""`finetune models list`, `get`, and `delete`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from finetune_api.model import Model, ModelSpec
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.models.serving_text import serving_cell, serving_rows
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, as_list, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import local_time, loss_text, number, parse_time, short_age
from finetune_cli.terminal.output import confirm
from finetune_cli.terminal.program import program_name

HEADINGS = ("MODEL", "FROM", "LOSS", "TOKENS", "SERVING", "AGE")
SERVING = HEADINGS.index("SERVING")  # this column is hidden if no model is served


@click.command("list")
@output_flag
@cluster_flags
def list_models(*, output: str | None, target: ClusterTarget) -> None:
    """List the fine-tuned models in a namespace, oldest first."""
    cluster = connect(target)
    items = cluster.models.list()
    if output:
        show_objects(as_list(items), output)
        return
    screen = Screen()
    if not items:
        screen.note(f"No fine-tuned models found in namespace {cluster.namespace!r}.")
        return
    now = datetime.now(UTC)
    rows = []
    for item in items:
        spec = item.get("spec", {})
        loss = (spec.get("metrics") or {}).get("trainingLoss")
        tokens = spec.get("trainedTokens")
        created = parse_time(item["metadata"].get("creationTimestamp"))
        rows.append(
            (
                str(spec.get("id", item["metadata"]["name"])),
                str(spec.get("parent") or spec.get("base", "")),
                loss_text(loss) if isinstance(loss, int | float) else "",
                f"{tokens:,}" if isinstance(tokens, int) else "",
                serving_cell(item),
                short_age((now - created).total_seconds()) if created else "",
            )
        )
    table: list[tuple[str, ...]] = [HEADINGS, *rows]
    if not any(row[SERVING] for row in rows):
        table = [(*row[:SERVING], *row[SERVING + 1 :]) for row in table]
    screen.table(table[0], table[1:], elastic="FROM")


@click.command("get")
@click.argument("model")
@output_flag
@cluster_flags
def get_model(*, model: str, output: str | None, target: ClusterTarget) -> None:
    """Show a model in detail."""
    raw = find_model(connect(target), model)
    if output:
        show_objects(raw, output)
        return
    found, screen = read_model(raw), Screen()
    spec = found.spec
    screen.say(spec.id, "bold")
    screen.pairs(
        [
            ("files", spec.uri),
            ("base model", spec.base),
            ("continued from", spec.parent or ""),
            ("fine-tune", spec.fine_tune.name if spec.fine_tune else ""),
            ("examples", f"{spec.training_examples:,}" if spec.training_examples else ""),
            ("trained tokens", f"{spec.trained_tokens:,}" if spec.trained_tokens else ""),
            *_metrics(spec),
            ("context length", f"{spec.context_length:,} tokens"),
            ("created", local_time(found.metadata.creation_timestamp)),
            ("served by", _server(spec)),
            ("on deletion", _deletion_effect(spec.deletion_policy)),
        ],
        indent=2,
    )
    _show_serving(screen, found, target.flags)
    run = f"{program_name()} complete {spec.id} -p PROMPT{target.flags}"
    screen.say(f"Continue: {program_name()} create -m {spec.id} -t FILE{target.flags}", "dim")
    screen.say(f"Generate: {run}", "dim")


@click.command("delete")
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Delete without asking for confirmation.")
@cluster_flags
def delete_model(*, model: str, yes: bool, target: ClusterTarget) -> None:
    """Delete a model. Its files are deleted as well if its deletionPolicy is Delete."""
    cluster = connect(target)
    found = read_model(find_model(cluster, model))
    effect = _deletion_effect(found.spec.deletion_policy)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError(f"deleting {found.spec.id} requires confirmation", "add --yes")
        confirm(f"Delete {found.spec.id}? ({effect})", aborts=True)
    cluster.models.delete(found.metadata.name, found.metadata.uid)
    Screen().say(f"Deleted {found.spec.id}: {effect}.")


def _show_serving(screen: Screen, model: Model, flags: str) -> None:
    """The state of the server of a Model with spec.serve, and the log of its last failure."""
    rows, serving = serving_rows(model, program_name(), flags), model.status.serving
    if not rows:
        return
    screen.say("Serving", "bold")
    screen.pairs(rows, indent=2)
    for line in (serving.log if serving else None) or []:
        screen.hanging("  | ", line, "")


def _metrics(spec: ModelSpec) -> list[tuple[str, str]]:
    """Each metric, with the value of the parent model on the same file."""
    after, before = (
        metrics.to_dict() if metrics else {} for metrics in (spec.metrics, spec.metrics_before)
    )
    return [
        (
            _spaced(name),
            number(value) + (f" (before: {number(before[name])})" if name in before else ""),
        )
        for name, value in after.items()
    ]


def _server(spec: ModelSpec) -> str:
    if spec.serving is None:
        return ""
    name = f" as {spec.serving.name}" if spec.serving.name else ""
    return f"Service {spec.serving.service}, port {spec.serving.port}{name}"


def _deletion_effect(policy: str) -> str:
    return "its files are deleted from S3" if policy == "Delete" else "its files stay in S3"


def _spaced(name: str) -> str:
    """`validation token accuracy` from `validationTokenAccuracy`."""
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name)
