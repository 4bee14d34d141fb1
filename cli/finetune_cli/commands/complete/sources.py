"""MODEL of `finetune complete`: a folder, an address, or a fine-tuned model's name."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.layout import MANIFEST
from finetune_api.names import LOCAL_BUCKET
from finetune_cli.artifacts.model_files import ADAPTER, checked_manifest, fetch
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE

if TYPE_CHECKING:
    from finetune_cli.cluster.connection import Cluster

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"


@dataclass(frozen=True)
class Source:
    """Where a model's files are on this machine.

    name: as it is told in answers; adapter: LoRA weights that are added to the model in `folder`
    """

    name: str
    folder: Path
    adapter: Path | None = None

    @property
    def separator(self) -> str:
        """What every prompt of its training ended with; empty where nothing says so."""
        from finetune_data.models.base_models import read_json

        folders = [*((self.adapter, self.adapter.parent) if self.adapter else ()), self.folder]
        told = (read_json(folder / MANIFEST).get("separator") for folder in folders)
        return next((text for text in told if isinstance(text, str)), "")


def find_source(model: str, base: str | None, target: ClusterTarget, screen: Screen) -> Source:
    """Fetches what is not here yet. base: what an adapter alone is added to."""
    path = Path(model).expanduser()
    if path.is_dir():
        return _of_folder(path, base, screen)
    if model.startswith("s3://"):
        return Source(model, _published(model, None, model, screen))
    if "/" in model:
        raise CommandError(f"there is no folder {model}", code=EXIT_USAGE)
    from finetune_cli.artifacts.model_lookup import find_model
    from finetune_cli.cluster.connection import connect
    from finetune_cli.cluster.objects import read_model

    cluster = connect(target)
    spec = read_model(find_model(cluster, _model_of(cluster, model))).spec
    return Source(spec.id, _published(spec.uri, spec.manifest_sha256, spec.id, screen))


def _model_of(cluster: Cluster, name: str) -> str:
    """The model of the fine-tune that has this name; else the name is the model's own."""
    from finetune_cli.cluster.errors import ApiError

    try:
        status = cluster.finetunes.get(name).get("status") or {}
    except ApiError as error:
        if not error.is_missing and error.status != HTTPStatus.BAD_REQUEST:
            raise
        return name
    return str(status.get("fineTunedModel") or name)


def _published(address: str, digest: str | None, name: str, screen: Screen) -> Path:
    """A published model never changes: what is in the cache under its manifest's digest is it."""
    from finetune_cli.artifacts.s3 import open_storage, parse_address

    uri, storage = parse_address(address), open_storage()
    data = storage.read_bytes(uri.child(MANIFEST))
    manifest = checked_manifest(data, digest, str(uri))
    folder = cache_folder() / hashlib.sha256(data).hexdigest()
    if not folder.is_dir():
        wanted = [entry for entry in manifest.files if not entry.path.startswith(ADAPTER)]
        fetch(
            *(uri, storage),
            wanted=wanted,
            manifest=data,
            destination=folder,
            name=name,
            screen=screen,
        )
        screen.note(f"kept in {folder}")
    return folder


def _of_folder(path: Path, base: str | None, screen: Screen) -> Source:
    if (path / CONFIG).is_file() and base is None:
        return Source(path.name or str(path), path)
    adapter = next((it for it in (path, path / ADAPTER) if (it / ADAPTER_CONFIG).is_file()), None)
    if adapter is None:
        what = "adapter" if base else "model"
        missing = ADAPTER_CONFIG if base else CONFIG
        raise CommandError(f"{path} holds no {what}: there is no {missing}", code=EXIT_USAGE)
    return Source(path.name or str(path), _base(base or _recorded_base(path), screen), adapter)


def _recorded_base(path: Path) -> str:
    """What a pulled model's manifest says that it was made from."""
    from finetune_data.models.base_models import read_json

    for folder in (path, path.resolve().parent):
        found = read_json(folder / MANIFEST).get("baseUri")
        if isinstance(found, str) and found and not found.startswith(f"s3://{LOCAL_BUCKET}/"):
            return found
    raise CommandError(
        f"{path} holds an adapter alone, and no manifest says of which base model",
        "add --base with the base model's folder or address (s3://... or hf://...)",
        code=EXIT_USAGE,
    )


def _base(address: str, screen: Screen) -> Path:
    """A folder, or an address whose files come into a cache."""
    if "://" not in address:
        folder = Path(address).expanduser()
        if not (folder / CONFIG).is_file():
            raise CommandError(f"{folder} holds no model: there is no {CONFIG}", code=EXIT_USAGE)
        return folder
    from finetune_api.tasks import BaseModelRef
    from finetune_cli.artifacts.s3 import open_storage, parse_address
    from finetune_data.models.base_models import fetch_base_model

    reference = BaseModelRef(
        name=address, root=address, uri=address, pretraining_learning_rate=1, context_length=8
    )
    storage, cache = open_storage(), cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    key = address
    if address.startswith("s3://"):  # what lies there may change: its ETags say so
        key = "\n".join(map(str, storage.list(parse_address(address))))
    cached = cache / f"base-{hashlib.sha256(key.encode()).hexdigest()}"
    if cached.is_dir():
        return cached
    with tempfile.TemporaryDirectory(prefix=".base-", dir=cache) as name:
        part = Path(name) / "model"
        with screen.transfer(f"fetching {address}") as progress:
            found = fetch_base_model(reference, part, storage, weights=True, progress=progress)
        if found != part:  # the hub's library has a cache of its own
            return found
        part.rename(cached)
    return cached


def cache_folder() -> Path:
    """`~/.cache/finetune/models`; whoever needs the room may remove it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "finetune" / "models"
