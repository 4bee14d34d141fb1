"""`finetune models serve`: sets spec.serve of a Model, and waits until a pod answers."""

from __future__ import annotations

import shlex
from typing import Any

import click

from finetune_api.model import Model
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.cluster.connection import Cluster, connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.models.progress import Progress
from finetune_cli.commands.models.serve_flags import given_fields, serve_flags
from finetune_cli.commands.models.serving_change import ServingChange
from finetune_cli.commands.models.serving_patch import patch_serve
from finetune_cli.commands.models.serving_text import (
    failure_hint,
    interrupt_lines,
    usage_lines,
)
from finetune_cli.commands.models.waiting import Clock, read_repeatedly, wait_until_served
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_INTERRUPTED, program_name


@click.command("serve")
@click.argument("model")
@serve_flags
@click.option(
    "--wait/--no-wait",
    "waits",
    default=True,
    help="Wait until the model is ready.  [default: wait]",
)
@cluster_flags
def serve_model(*, model: str, waits: bool, target: ClusterTarget, **given: Any) -> None:
    """Serve a model in the cluster: the operator creates its pods and a Service.

    Fields that you do not set keep their value if the model is served already. The command ends
    when the model is ready, and prints its address. The exit code is 1 if the pods do not start;
    Kubernetes then keeps trying, until `models stop`.

    \b
      finetune models serve MODEL --min-replicas 0 --idle 15m
      finetune models serve MODEL --runtime vllm --gpus 2
    """
    cluster, screen = connect(target), Screen()
    found = read_model(find_model(cluster, model))
    _require_servable(found, target.flags)
    patched = patch_serve(cluster, found, given_fields(given))
    change = ServingChange.of(found, patched)
    screen.say(change.describe(found.spec.id), "bold")
    if not waits:
        show = f"{program_name()} models get {shlex.quote(found.spec.id)}{target.flags}"
        screen.say(f"See its state: {show}", "dim")
        return
    raise SystemExit(_wait(cluster, patched, change, screen, target.flags))


def _require_servable(model: Model, flags: str) -> None:
    """Raise CommandError for a Model that the operator must not or cannot serve."""
    if model.metadata.deletion_timestamp is not None:
        raise CommandError(f"{model.spec.id} is being deleted, so it cannot be served")
    own = model.spec.serving
    if own is not None:
        patch = shlex.quote('{"spec":{"serving":null}}')
        raise CommandError(
            f"{model.spec.id} already has a server of your own: its spec.serving names the "
            f"Service {own.service}",
            "remove spec.serving first: kubectl patch model "
            f"{shlex.quote(model.metadata.name)} --type=merge -p {patch}{flags}",
        )


def _wait(cluster: Cluster, model: Model, change: ServingChange, screen: Screen, flags: str) -> int:
    """Show the state until it lasts; returns the exit code. Raises CommandError if it failed."""
    screen.say("Waiting until it is ready. Ctrl-C stops waiting, not the server.", "dim")
    try:
        with Progress(screen) as progress:
            readings = read_repeatedly(cluster.models, model.metadata.name, progress, Clock())
            serving = wait_until_served(readings, change, progress, flags)
    except KeyboardInterrupt:
        screen.note()
        for line in interrupt_lines(model, program_name(), flags):
            screen.note(line)
        return EXIT_INTERRUPTED
    if serving.state == "failed":
        for line in serving.log or []:
            screen.hanging("  | ", line, "")
        raise CommandError(
            f"{model.spec.id} is not served: {serving.message}",
            failure_hint(model, serving, program_name(), flags),
        )
    for text, style in usage_lines(model, serving, cluster.namespace, program_name(), flags):
        screen.say(text, style)
    return 0
