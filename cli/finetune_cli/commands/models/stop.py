"""`finetune models stop`: removes spec.serve of a Model, and waits until its server is gone."""

from __future__ import annotations

import click

from finetune_api.model import Model
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.commands.models.progress import Progress
from finetune_cli.commands.models.serving_patch import patch_serve
from finetune_cli.commands.models.serving_text import server_name
from finetune_cli.commands.models.waiting import Clock, read_repeatedly, wait_until_stopped
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.program import EXIT_INTERRUPTED


@click.command("stop")
@click.argument("model")
@cluster_flags
def stop_model(*, model: str, target: ClusterTarget) -> None:
    """Stop serving a model. Its files and its Model remain.

    The command removes spec.serve, and waits until the operator has deleted the pods and the
    Service.
    """
    cluster, screen = connect(target), Screen()
    found = read_model(find_model(cluster, model))
    if found.spec.serve is None and found.status.serving is None:
        screen.say(_not_served(found))
        return
    if found.spec.serve is not None:
        patch_serve(cluster, found, None)
    server = server_name(found)
    try:
        with Progress(screen) as progress:
            readings = read_repeatedly(cluster.models, found.metadata.name, progress, Clock())
            wait_until_stopped(readings, progress, server, target.flags)
    except KeyboardInterrupt:
        screen.note(f"Stopped waiting. The operator removes the server of {found.spec.id}.")
        raise SystemExit(EXIT_INTERRUPTED) from None
    screen.say(f"Stopped serving {found.spec.id}: Deployment and Service {server} are removed.")


def _not_served(model: Model) -> str:
    own = model.spec.serving
    if own is None:
        return f"{model.spec.id} is not served."
    return (
        f"{model.spec.id} is not served by the operator. Its spec.serving names the Service "
        f"{own.service}, which is your own."
    )
