"""`finetune models list`, `get` and `delete`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from finetune_api.model import ModelSpec
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags, output_flag
from finetune_cli.terminal.console import Screen, as_list, show_objects
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import local, loss_text, moment, number, short_age
from finetune_cli.terminal.program import program

HEADINGS = ("MODEL", "FROM", "LOSS", "TOKENS", "AGE")


@click.command("list")
@output_flag
@cluster_flags
def list_models(*, output: str | None, place: ClusterTarget) -> None:
    """The fine-tuned models of a namespace, the oldest first."""
    cluster = connect(place)
    items = cluster.models.list()
    if output:
        show_objects(as_list(items), output)
        return
    screen = Screen()
    if not items:
        screen.note(f"There are no fine-tuned models in namespace {cluster.namespace!r}.")
        return
    now = datetime.now(UTC)
    rows = []
    for item in items:
        spec = item.get("spec", {})
        loss = (spec.get("metrics") or {}).get("trainingLoss")
        tokens = spec.get("trainedTokens")
        created = moment(item["metadata"].get("creationTimestamp"))
        rows.append(
            (
                str(spec.get("id", item["metadata"]["name"])),
                str(spec.get("parent") or spec.get("base", "")),
                loss_text(loss) if isinstance(loss, int | float) else "",
                f"{tokens:,}" if isinstance(tokens, int) else "",
                short_age((now - created).total_seconds()) if created else "",
            )
        )
    screen.table(HEADINGS, rows, elastic="FROM")


@click.command("get")
@click.argument("model")
@output_flag
@cluster_flags
def get_model(*, model: str, output: str | None, place: ClusterTarget) -> None:
    """What is known of one model."""
    raw = find_model(connect(place), model)
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
            ("tokens trained", f"{spec.trained_tokens:,}" if spec.trained_tokens else ""),
            *_measured(spec),
            ("context", f"{spec.context_length:,} tokens"),
            ("created", local(found.metadata.creation_timestamp)),
            ("when deleted", _fate(spec.deletion_policy)),
        ],
        indent=2,
    )
    screen.say(f"Go on from it: {program()} create -m {spec.id} -t FILE{place.flags}", "dim")
    screen.say(f"Let it answer: {program()} complete {spec.id} -p PROMPT{place.flags}", "dim")


@click.command("delete")
@click.argument("model")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@cluster_flags
def delete_model(*, model: str, yes: bool, place: ClusterTarget) -> None:
    """Delete a model; its files too where its deletionPolicy is Delete."""
    cluster = connect(place)
    found = read_model(find_model(cluster, model))
    fate = _fate(found.spec.deletion_policy)
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError(f"deleting {found.spec.id} must be confirmed", "add --yes")
        click.confirm(f"Delete {found.spec.id}? When deleted: {fate}.", abort=True)
    cluster.models.delete(found.metadata.name, found.metadata.uid)
    Screen().say(f"Deleted {found.spec.id}: {fate}.")


def _measured(spec: ModelSpec) -> list[tuple[str, str]]:
    """Each figure; beside it what the model that it continued from had on the same file."""
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


def _fate(policy: str) -> str:
    return "its files go too" if policy == "Delete" else "its files stay in S3"


def _spaced(name: str) -> str:
    """`validation token accuracy` of `validationTokenAccuracy`."""
    return "".join(f" {char.lower()}" if char.isupper() else char for char in name)
