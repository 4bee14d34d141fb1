"""`finetune models pull`: the files as Hugging Face lays them out, checked against the manifest."""

from __future__ import annotations

import glob
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finetune_api.layout import MANIFEST
from finetune_cli.artifacts.model_lookup import find_model
from finetune_cli.artifacts.s3 import open_storage, parse_address
from finetune_cli.cluster.connection import connect
from finetune_cli.cluster.objects import read_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.options import cluster_flags
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.format import size

if TYPE_CHECKING:
    from finetune_api.uris import S3Uri
    from finetune_storage.manifests import FileEntry, Manifest
    from finetune_storage.s3 import Storage

ADAPTER = "adapter/"


@click.command("pull")
@click.argument("model")
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option("--adapter-only", is_flag=True, help="Of a LoRA model: only adapter/.")
@cluster_flags
def pull(*, model: str, folder: Path | None, adapter_only: bool, target: ClusterTarget) -> None:
    """Fetch a model into FOLDER, by default one named after it.

    The folder appears when every file is there with the SHA-256 that the model's manifest lists.
    """
    found = read_model(find_model(connect(target), model))
    destination = folder or Path(found.metadata.name)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CommandError(f"{destination} is there and not empty", "choose another folder")
    uri, storage, screen = parse_address(found.spec.uri), open_storage(), Screen()
    data = storage.read_bytes(uri.child(MANIFEST))
    manifest = checked_manifest(data, found.spec.manifest_sha256, str(uri))
    wanted = [it for it in manifest.files if not adapter_only or it.path.startswith(ADAPTER)]
    if not wanted:
        raise CommandError(f"{found.spec.id} has no adapter: all its weights were trained")
    needed = fetch(
        *(uri, storage),
        wanted=wanted,
        manifest=data,
        destination=destination,
        name=found.spec.id,
        screen=screen,
    )
    screen.say(f"Fetched {found.spec.id} into {destination} ({len(wanted)} files, {size(needed)})")


def fetch(
    uri: S3Uri,
    storage: Storage,
    *,
    wanted: Sequence[FileEntry],
    manifest: bytes,
    destination: Path,
    name: str,
    screen: Screen,
) -> int:
    """`wanted` and the manifest into `destination`, which appears when all is right; returns bytes.

    Raises CommandError where the disk has no room or a file is not as the manifest lists it.
    """
    from finetune_storage.manifests import find_damage

    destination.parent.mkdir(parents=True, exist_ok=True)
    room, needed = shutil.disk_usage(destination.parent).free, sum(entry.size for entry in wanted)
    if needed > room:
        raise CommandError(
            f"{name} needs {size(needed)}, and {destination.parent.resolve()} has {size(room)}",
            "choose a folder on another disk",
        )
    # beside the destination, so that the last step is a rename
    with tempfile.TemporaryDirectory(
        prefix=f".{destination.name}-", dir=destination.parent
    ) as folder:
        part = Path(folder) / "model"
        patterns = [glob.escape(entry.path) for entry in wanted]
        with screen.transfer(f"fetching {name}") as progress:
            storage.download_prefix(uri, part, patterns, progress)
        if damage := find_damage(part, wanted):
            raise CommandError(f"what came from {uri} is damaged: {damage}", "try again")
        (part / MANIFEST).write_bytes(manifest)
        if destination.exists():
            destination.rmdir()
        part.rename(destination)
    return needed


def checked_manifest(data: bytes, digest: str | None, where: str) -> Manifest:
    """A model's manifest. Raises CommandError where it is another one than `digest` vouches for."""
    from finetune_storage.manifests import Manifest

    if digest and hashlib.sha256(data).hexdigest() != digest:
        raise CommandError(
            f"the manifest in {where} is not the one that was published",
            "somebody has changed the files; train again, or restore them",
        )
    manifest = Manifest.parse_files(data)
    if manifest is None:
        raise CommandError(f"{where} holds no published model: its manifest is not one of ours")
    return manifest
