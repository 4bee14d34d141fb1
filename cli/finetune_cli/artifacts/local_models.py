"""Finds a model that answers on this machine by folder, address, or name, and downloads it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.layout import MANIFEST
from finetune_api.names import LOCAL_BUCKET
from finetune_cli.artifacts.model_files import ADAPTER, open_model
from finetune_cli.cluster.target import ClusterTarget
from finetune_cli.terminal.console import Screen
from finetune_cli.terminal.errors import CommandError
from finetune_cli.terminal.program import EXIT_USAGE
from finetune_serving.completion.local_model import LocalModel

if TYPE_CHECKING:
    from finetune_cli.cluster.connection import Cluster
    from finetune_trainer.evaluation.inference import CausalModel

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
BASE = "base"
PUBLISHED_DEPTH = 2  # folders of a model below its bucket: namespace and FineTune
_LOCAL = f"s3://{LOCAL_BUCKET}/"
_LINK = re.compile(r"models/(?!\.{1,2}$)[^/\0]+")
_MODEL_ERRORS = (OSError, ValueError, RuntimeError, KeyError, ImportError)  # of torch, transformers


def find_source(model: str, base: str | None, target: ClusterTarget, screen: Screen) -> LocalModel:
    """Find the model and download missing files. base: the base model of a separate adapter."""
    path = Path(model).expanduser()
    if path.is_dir():
        return _of_folder(path, base, screen)
    if model.startswith("s3://"):
        return LocalModel(model, _download_published(model, None, model, screen))
    if "/" in model:
        raise CommandError(f"there is no folder {model}", code=EXIT_USAGE)
    from finetune_cli.artifacts.model_lookup import find_model
    from finetune_cli.cluster.connection import connect
    from finetune_cli.cluster.objects import read_model

    cluster = connect(target)
    spec = read_model(find_model(cluster, _model_of(cluster, model))).spec
    return LocalModel(spec.id, _download_published(spec.uri, spec.manifest_sha256, spec.id, screen))


def find_base(source: LocalModel, screen: Screen) -> LocalModel:
    """The base model of a fine-tuned model, from its manifest; missing files are downloaded."""
    if source.adapter is not None:
        return LocalModel(BASE, source.folder)
    from finetune_data.models.base_models import read_json

    address = read_json(source.folder / MANIFEST).get("baseUri")
    if isinstance(address, str) and address.startswith(_LOCAL):
        address = _linked_base(source.folder, address.removeprefix(_LOCAL))
    if not isinstance(address, str) or not address:
        raise CommandError(
            f"{source.name} has no manifest with the address of its base model",
            "name the folder or the address of the base model in place of `base`",
            code=EXIT_USAGE,
        )
    return LocalModel(BASE, _base(address, screen))


def _linked_base(folder: Path, key: str) -> str | None:
    """The base model of `finetune run` and `serve`, which link it into their output folder.

    folder: of the model. key: of the base model in the bucket that the output folder is.
    """
    parents = folder.resolve().parents
    if len(parents) <= PUBLISHED_DEPTH or not _LINK.fullmatch(key):
        return None
    found = parents[PUBLISHED_DEPTH] / key
    return str(found) if (found / CONFIG).is_file() else None


@contextmanager
def loaded(source: LocalModel, *, cpu: bool) -> Iterator[CausalModel]:
    """The model in memory, for the block. An error of torch or transformers becomes a sentence."""
    from finetune_trainer.evaluation.inference import CausalModel, check_loadable

    try:
        check_loadable(source.folder, source.name)
        model = CausalModel(source.folder, source.adapter, cpu=cpu)
        yield model
        model.close()
    except _MODEL_ERRORS as error:
        raise _model_error(source, error) from error


def _model_error(source: LocalModel, error: Exception) -> CommandError:
    what = " ".join(str(error).split())[:300]
    if "out of memory" in what:
        return CommandError(f"{source.name} does not fit into the GPU's memory", "add --cpu")
    return CommandError(f"cannot use the model in {source.folder}: {what}")


def _model_of(cluster: Cluster, name: str) -> str:
    """The model of the fine-tune with this name; otherwise `name` is the name of a model."""
    from finetune_cli.cluster.errors import ApiError

    try:
        status = cluster.finetunes.get(name).get("status") or {}
    except ApiError as error:
        if not error.is_missing and error.status != HTTPStatus.BAD_REQUEST:
            raise
        return name
    return str(status.get("fineTunedModel") or name)


def _download_published(address: str, digest: str | None, name: str, screen: Screen) -> Path:
    """The cached folder of a published model; the digest of its manifest is the cache key."""
    published = open_model(address, digest, name)
    folder = cache_folder() / hashlib.sha256(published.manifest).hexdigest()
    if not folder.is_dir():
        files = [entry for entry in published.files if not entry.path.startswith(ADAPTER)]
        published.download(files, folder, screen)
        screen.note(f"Cached in {folder}")
    return folder


def _of_folder(path: Path, base: str | None, screen: Screen) -> LocalModel:
    if (path / CONFIG).is_file() and base is None:
        return LocalModel(path.name or str(path), path)
    adapter = next((it for it in (path, path / ADAPTER) if (it / ADAPTER_CONFIG).is_file()), None)
    if adapter is None:
        kind = "adapter" if base else "model"
        missing = ADAPTER_CONFIG if base else CONFIG
        raise CommandError(f"{path} contains no {kind}: {missing} is missing", code=EXIT_USAGE)
    return LocalModel(path.name or str(path), _base(base or _recorded_base(path), screen), adapter)


def _recorded_base(path: Path) -> str:
    """The address of the base model, from the manifest of a downloaded model."""
    from finetune_data.models.base_models import read_json

    for folder in (path, path.resolve().parent):
        found = read_json(folder / MANIFEST).get("baseUri")
        if isinstance(found, str) and found and not found.startswith(_LOCAL):
            return found
    raise CommandError(
        f"{path} contains only an adapter, and no manifest with the address of its base model",
        "add --base with the folder or address (s3://... or hf://...) of the base model",
        code=EXIT_USAGE,
    )


def _base(address: str, screen: Screen) -> Path:
    """The folder of the base model; the files of an address are downloaded into a cache."""
    if "://" not in address:
        folder = Path(address).expanduser()
        if not (folder / CONFIG).is_file():
            raise CommandError(f"{folder} contains no model: {CONFIG} is missing", code=EXIT_USAGE)
        return folder
    from finetune_cli.artifacts.base_models import model_at
    from finetune_cli.artifacts.s3 import open_storage, parse_address
    from finetune_data.models.base_models import fetch_base_model

    storage, cache = open_storage(), cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    key = address
    if address.startswith("s3://"):  # the objects can change; the listing contains their ETags
        key = "\n".join(map(str, storage.list(parse_address(address))))
    cached = cache / f"base-{hashlib.sha256(key.encode()).hexdigest()}"
    if cached.is_dir():
        return cached
    with tempfile.TemporaryDirectory(prefix=".base-", dir=cache) as name:
        part = Path(name) / "model"
        with screen.transfer(f"downloading {address}") as progress:
            found = fetch_base_model(
                model_at(address), part, storage, weights=True, progress=progress
            )
        if found != part:  # the library of the Hugging Face Hub has its own cache
            return found
        part.rename(cached)
    return cached


def cache_folder() -> Path:
    """`~/.cache/finetune/models`; users may delete it to free disk space."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "finetune" / "models"
