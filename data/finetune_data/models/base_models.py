"""Downloads base models, from `s3://` or `hf://` to a folder that transformers can load.

Only safetensors and JSON are downloaded: never a pickle, never Python code. All files are checked
before they are used, so that a broken copy is one sentence and not a crash an hour later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune_api.errors import Audience
from finetune_api.layout import MANIFEST
from finetune_api.names import Reason
from finetune_api.tasks import BaseModelRef
from finetune_api.uris import HubUri, S3Uri, parse_model_uri
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models import hub
from finetune_data.models.safetensors_files import find_truncation
from finetune_storage.errors import StorageError
from finetune_storage.manifests import Manifest, find_damage
from finetune_storage.progress import ProgressCallback
from finetune_storage.s3 import Storage
from finetune_storage.transfers import matches

CONFIG = "config.json"
CARD = "README.md"  # the model card, which names the license
INDEX = "model.safetensors.index.json"

# Top-level files only: subfolders have other formats of the same weights.
SMALL_FILES = (
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    CARD,
    MANIFEST,
)
WEIGHT_FILES = ("model*.safetensors", INDEX)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def fetch_base_model(
    base: BaseModelRef,
    folder: Path,
    storage: Storage,
    *,
    weights: bool,
    progress: ProgressCallback | None = None,
) -> Path:
    """Download the config, the tokenizer, and with `weights` also the weights of `base`.

    Returns the folder that holds them: `folder`, or the hub's own cache. Raises BaseModelError
    (BaseModelNotFound, BaseModelInvalid), or StorageError for a problem with S3.
    """
    try:
        uri = parse_model_uri(base.uri)
    except ValueError as error:
        failure = failures.invalid_model_address(base.name, base.uri, error)
        raise BaseModelError(failure) from error
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(uri, HubUri):
        found = hub.list_files(uri, _wanted(weights), base.name)
        _check_names(base, found.names, weights)
        folder = hub.fetch(found, folder, base.name, progress)
    else:
        _fetch_from_s3(base, uri, folder, storage, weights=weights, progress=progress)
    problem = find_problem(folder, weights=weights)
    if problem is not None:
        raise BaseModelError(failures.broken_model(base.name, base.uri, problem))
    return folder


def stored_weight_bytes(base: BaseModelRef, storage: Storage) -> int | None:
    """The size of the weight files in S3, in bytes; None for a model on a hub."""
    uri = parse_model_uri(base.uri)
    if isinstance(uri, HubUri):
        return None
    start = len(uri.key) + 1 if uri.key else 0
    sizes = [
        entry.size
        for entry in storage.list(uri)
        if matches(entry.key[start:], ("model*.safetensors",))
    ]
    return sum(sizes) or None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no such file. Raises ValueError, which names the file."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    return value


def text_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of config.json. Those of the text part of a larger model take precedence."""
    part = config.get("text_config")
    return {**config, **part} if isinstance(part, dict) else dict(config)


def model_positions(folder: Path) -> int | None:
    """The longest sequence of the model's config, in tokens; None if the config has no limit."""
    config = text_settings(read_json(folder / CONFIG))
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def find_problem(folder: Path, *, weights: bool) -> str | None:
    """The first problem of a model's files, in words; None for a model that can be loaded."""
    try:
        if not read_json(folder / CONFIG).get("model_type"):
            return f"{CONFIG} names no model_type"
        manifest = Manifest.parse_files(_bytes(folder / MANIFEST))
        if manifest is not None:
            # a download without weights has only some of the files, and no download has an adapter
            top = [entry for entry in manifest.files if "/" not in entry.path]
            here = [entry for entry in top if weights or (folder / entry.path).exists()]
            if damage := find_damage(folder, here):
                return damage
        if not weights:
            return None
        shards = _shards(folder)
    except ValueError as error:
        return str(error)
    for shard in shards:
        if not (folder / shard).is_file():
            return f"{shard} is missing, which {INDEX} lists"
        if problem := find_truncation(folder / shard):
            return f"{shard} {problem}"
    return None


def _shards(folder: Path) -> list[str]:
    index = read_json(folder / INDEX)
    if not index:
        return ["model.safetensors"]
    names = index.get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{INDEX} has no weight_map")
    shards = sorted({str(name) for name in names.values()})
    if any(not matches(shard, WEIGHT_FILES) for shard in shards):
        raise ValueError(f"{INDEX} lists files that are not model*.safetensors in the same folder")
    return shards


def _fetch_from_s3(
    base: BaseModelRef,
    uri: S3Uri,
    folder: Path,
    storage: Storage,
    *,
    weights: bool,
    progress: ProgressCallback | None,
) -> None:
    try:
        start = len(uri.key) + 1 if uri.key else 0
        _check_names(base, [entry.key[start:] for entry in storage.list(uri)], weights)
        storage.download_prefix(uri, folder, _wanted(weights), progress)
    except StorageError as error:
        if error.failure.code in {Reason.DATA_NOT_FOUND, Reason.BUCKET_NOT_FOUND}:
            raise _missing(base, error) from error
        if error.failure.code == Reason.INVALID_DATA:
            failure = failures.unsafe_model(base.name, base.uri, error)
            raise BaseModelError(failure) from error
        raise error.about("model") from error


def _missing(base: BaseModelRef, error: StorageError) -> BaseModelError:
    """BaseModelNotFound for each audience of the storage error."""
    pod, shell = error.failure_for(Audience.POD), error.failure_for(Audience.SHELL)
    return BaseModelError(
        failures.missing_model(base.name, base.uri, pod.message),
        failures.missing_model(base.name, base.uri, shell.message).replace(hint=shell.hint),
    )


def _check_names(base: BaseModelRef, names: Iterable[str], weights: bool) -> None:
    """Raise an error for missing files before gigabytes are downloaded."""
    names = set(names)
    if not names:
        raise BaseModelError(failures.missing_model(base.name, base.uri))
    if CONFIG not in names:
        raise BaseModelError(failures.no_config(base.name, base.uri, CONFIG))
    if weights and not names & {"model.safetensors", INDEX}:
        pickled = sorted(name for name in names if matches(name, PICKLES))
        first = pickled[0] if pickled else None
        raise BaseModelError(failures.no_safetensors(base.name, base.uri, first))


def _wanted(weights: bool) -> tuple[str, ...]:
    return (*SMALL_FILES, *WEIGHT_FILES) if weights else SMALL_FILES


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
