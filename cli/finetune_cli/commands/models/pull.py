"""`finetune models pull`."""

from __future__ import annotations

from pathlib import Path

import click

from finetune_cli.artifacts.model_files import ADAPTER, open_model
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import size


@click.command("pull")
@click.argument("model")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--adapter-only", is_flag=True, help="Download only adapter/ of a LoRA model.")
@cluster_flags
def pull(*, model: str, folder: Path | None, adapter_only: bool, target: ClusterTarget) -> None:
    """Download a model into FOLDER. By default, FOLDER is the name of its object.

    The folder appears after all files are downloaded and match the SHA-256 sums of the model's
    manifest.
    """
    found = read_model(find_model(connect(target), model))
    destination = folder or Path(found.metadata.name)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CommandError(
            f"{destination} already exists and is not empty", "choose another folder"
        )
    published = open_model(found.spec.uri, found.spec.manifest_sha256, found.spec.id)
    files = [it for it in published.files if not adapter_only or it.path.startswith(ADAPTER)]
    if not files:
        raise CommandError(
            f"{found.spec.id} has no adapter: all of its weights were trained",
            "omit --adapter-only",
        )
    screen = Screen()
    count = published.download(files, destination, screen)
    screen.say(f"Downloaded {found.spec.id} to {destination} ({len(files)} files, {size(count)})")
