"""Downloads base models, from `s3://` or `hf://` to a folder that transformers can load.

Only safetensors, JSON, vocabularies, and chat templates are downloaded: never a pickle, never
Python code. All files are checked before they are used, so that a broken copy is one sentence and
not a crash an hour later.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune_api.errors import Audience
from finetune_api.layout import MANIFEST
from finetune_api.tasks import BaseModelRef
from finetune_api.uris import HubUri, parse_model_uri
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models.cache.model_cache import DamagedFileError, ModelCache
from finetune_data.models.configuration import check_bounds
from finetune_data.models.hub import HubModel
from finetune_data.models.remote_model import WEIGHTS, RemoteModel
from finetune_data.models.s3_model import S3Model
from finetune_data.models.safetensors_files import find_truncation
from finetune_storage.manifests import Manifest, find_damage
from finetune_storage.progress import ProgressCallback
from finetune_storage.s3 import Storage
from finetune_storage.transfers import matches

CONFIG = "config.json"
CARD = "README.md"  # the model card, which names the license
INDEX = "model.safetensors.index.json"

TEMPLATES = "additional_chat_templates"  # transformers' folder for all but the default template

# Patterns of files. No other subfolder: they have other formats of the same weights.
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
    f"{TEMPLATES}/*.jinja",
    CARD,
    MANIFEST,
)
WEIGHT_FILES = (WEIGHTS, INDEX)
SETTINGS_FILES = (CONFIG, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# All files that a training depends on: everything that is downloaded, but for the model card.
VERSIONED_FILES = (*(name for name in SMALL_FILES if name != CARD), *WEIGHT_FILES)
# The largest known tokenizer.json has 34 MB.
MAX_BYTES = (
    ("tokenizer.*", 2**27),
    ("vocab.*", 2**27),
    ("*.model", 2**27),
    ("tekken.json", 2**27),
    (INDEX, 2**27),
    (WEIGHTS, 2**62),
    ("*.jinja", 2**21),
    (CONFIG, 2**23),
)
MAX_OTHERS = 2**25
MAX_DIGITS = 1000  # of an integer
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def fetch_base_model(
    base: BaseModelRef,
    folder: Path,
    storage: Storage,
    *,
    weights: bool,
    progress: ProgressCallback | None = None,
    cache: ModelCache | None = None,
) -> Path:
    """Download the config, the tokenizer, and with `weights` also the weights of `base`.

    cache: keeps the weights, and `folder` gets links to them. All other files are always
    downloaded from the source, which proves that this pod may read the model.

    Returns the folder that holds them: `folder`, or the hub's own cache. Raises BaseModelError
    (BaseModelNotFound, BaseModelInvalid, BaseModelChanged), StorageError for a problem with S3, or
    CacheError.
    """
    model = find_remote_model(base, folder, storage, weights=weights)
    hashed: frozenset[str] = frozenset()
    if cache is not None and weights and model.is_cacheable:
        small = [name for name in model.files if not fnmatchcase(name, WEIGHTS)]
        model.fetch(small, folder)
        hashed = _link_weights(base, model, folder, cache, progress)
    else:
        _check_space(base, model, folder)
        folder = model.fetch(model.files, folder, progress)
    problem = find_problem(folder, weights=weights, hashed=hashed)
    if problem is not None:
        raise BaseModelError(failures.broken_model(base.name, base.uri, problem))
    return folder


def find_remote_model(
    base: BaseModelRef, folder: Path, storage: Storage, *, weights: bool
) -> RemoteModel:
    """The wanted files of `base` at their source; creates the folder for them.

    Raises BaseModelError or StorageError, also for missing files, and for a model that no longer
    has the revision of `base`.
    """
    try:
        uri = parse_model_uri(base.uri)
    except ValueError as error:
        failure = failures.invalid_model_address(base.name, base.uri, error)
        raise BaseModelError(failure) from error
    folder.mkdir(parents=True, exist_ok=True)
    wanted = _wanted(weights)
    model: RemoteModel = (
        HubModel(uri, wanted, base.name, base.revision)
        if isinstance(uri, HubUri)
        else S3Model(base, uri, storage, wanted, folder, versioned=VERSIONED_FILES)
    )
    _check_names(base, model.names, weights)
    for file in model.files.values():
        if file.name != CARD and file.size > size_limit(file.name):
            problem = too_large(file.name, file.size)
            raise BaseModelError(failures.broken_model(base.name, base.uri, problem))
    if base.revision not in {None, model.revision}:
        failure = failures.changed_model(base.name, base.uri, base.revision, model.revision)
        raise BaseModelError(failure)
    return model


def _link_weights(
    base: BaseModelRef,
    model: RemoteModel,
    folder: Path,
    cache: ModelCache,
    progress: ProgressCallback | None,
) -> frozenset[str]:
    """Link the cached weights into the folder. Returns the names whose digests were checked."""
    manifest = Manifest.parse_files(_bytes(folder / MANIFEST))
    published = {entry.path: entry.sha256 for entry in manifest.files} if manifest else {}
    files = [replace(file, sha256=published.get(file.name, file.sha256)) for file in model.weights]
    try:
        cached = cache.provide(model, files, progress)
    except DamagedFileError as error:
        raise BaseModelError(failures.broken_model(base.name, base.uri, str(error))) from error
    for file in files:
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).symlink_to(cached / file.name)
    return frozenset(file.name for file in files)


def _check_space(base: BaseModelRef, model: RemoteModel, folder: Path) -> None:
    """Raise an error for a volume that is too small before gigabytes are downloaded."""
    needed, free = model.space_needed(), shutil.disk_usage(folder).free
    if needed > free:
        sizes = {"needed": f"{needed / 1e9:,.1f} GB", "free": f"{free / 1e9:,.1f} GB"}
        made = (
            failures.no_space(base.name, base.uri, audience, **sizes, folder=folder)
            for audience in (Audience.POD, Audience.SHELL)
        )
        raise BaseModelError(*made)


def stored_weight_bytes(base: BaseModelRef, storage: Storage) -> int | None:
    """The size of the weight files in S3, in bytes; None for a model on a hub."""
    uri = parse_model_uri(base.uri)
    if isinstance(uri, HubUri):
        return None
    start = len(uri.key) + 1 if uri.key else 0
    sizes = [entry.size for entry in storage.list(uri) if matches(entry.key[start:], (WEIGHTS,))]
    return sum(sizes) or None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; {} if there is no such file.

    Raises ValueError, which names the file, also for a file that is too large, for a key that
    occurs twice, and for sizes in config.json that no model has.
    """
    try:
        if (size := path.stat().st_size) > size_limit(path.name):
            raise ValueError(too_large(path.name, size))
        value = json.loads(path.read_bytes(), object_pairs_hook=_object, parse_int=_integer)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except _ContentError as error:
        raise ValueError(f"{path.name} {error}") from error
    except RecursionError as error:
        raise ValueError(f"{path.name} is not JSON: nested too deeply") from error
    except ValueError as error:
        if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
            raise
        raise ValueError(f"{path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    if path.name == CONFIG:
        check_bounds(value)
    return value


class _ContentError(Exception):
    """JSON that libraries read differently, or not at all."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        again = next(name for name, count in counts.items() if count > 1)
        raise _ContentError(f"has the key {again!r:.100} twice in one object")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _ContentError(f"has an integer of {len(digits):,} digits")
    return int(digits)


def size_limit(name: str) -> int:
    """The bytes that a small file of a base model may have."""
    return next((most for pattern, most in MAX_BYTES if fnmatchcase(name, pattern)), MAX_OTHERS)


def too_large(name: str, size: int) -> str:
    """The sentence about a file that is larger than `size_limit`."""
    return f"{name} has {size:,} bytes, more than the {size_limit(name):,} that are read"


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


def find_problem(
    folder: Path, *, weights: bool, hashed: frozenset[str] = frozenset()
) -> str | None:
    """The first problem of a model's files, in words; None for a model that can be loaded.

    hashed: the files whose digests were compared with the manifest before.
    """
    try:
        for name in SETTINGS_FILES:
            read_json(folder / name)
        if not read_json(folder / CONFIG).get("model_type"):
            return f"{CONFIG} names no model_type"
        manifest = Manifest.parse_files(_bytes(folder / MANIFEST))
        if manifest is not None:
            # a download without weights has only some of the files, and no download has an adapter
            top = [
                entry
                for entry in manifest.files
                if "/" not in entry.path or matches(entry.path, SMALL_FILES)
            ]
            here = [
                entry
                for entry in top
                if entry.path not in hashed and (weights or (folder / entry.path).exists())
            ]
            if damage := find_damage(folder, here):
                return damage
        if not weights:
            return None
        shards = find_shards(folder)
    except ValueError as error:
        return str(error)
    for shard in shards:
        if not (folder / shard).is_file():
            return f"{shard} is missing, which {INDEX} lists"
        if problem := find_truncation(folder / shard):
            return f"{shard} {problem}"
    return None


def find_shards(folder: Path) -> list[str]:
    """The names of the weight files, which the index lists. Raises ValueError, in words."""
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
