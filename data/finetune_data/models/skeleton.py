"""A base model without its weights: a folder whose weight files have their headers and holes.

Every library that only reads names, types, and shapes treats such a folder like the model. A file
of 5 GB occupies a few kilobytes of the disk, and of the source only the headers are read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_api.layout import MANIFEST
from finetune_api.tasks import BaseModelRef
from finetune_data import failures
from finetune_data.errors import BaseModelError
from finetune_data.models.base_models import (
    CARD,
    INDEX,
    SMALL_FILES,
    find_problem,
    find_remote_model,
    find_shards,
)
from finetune_data.models.remote_model import RemoteModel
from finetune_data.models.safetensors_files import (
    LENGTH_BYTES,
    StoredTensor,
    parse_header,
    read_tensors,
)
from finetune_storage.s3 import Storage
from finetune_storage.transfers import fetch_in_parallel, matches

MAX_HEADERS = 100_000_000  # bytes of all headers; those of 90,000 tensors have 11,000,000
Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Skeleton:
    """The folder, and the tensors of each weight file by name."""

    folder: Path
    files: Mapping[str, Tensors]

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors of all files, by name."""
        return {name: tensor for file in self.files.values() for name, tensor in file.items()}

    @property
    def digest(self) -> str:
        """SHA-256 of the settings, the tokenizer, and the names, types, and shapes of tensors."""
        files = {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.name not in {CARD, MANIFEST, *self.files}
        }
        tensors = {
            file: [[name, tensor.dtype, tensor.shape] for name, tensor in tensors.items()]
            for file, tensors in self.files.items()
        }
        text = json.dumps([files, tensors], sort_keys=True, default=list)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def fetch_skeleton(base: BaseModelRef, folder: Path, storage: Storage) -> Skeleton:
    """Make the skeleton of a base model in a new `folder`, with the headers of its weights.

    Raises BaseModelError (BaseModelNotFound, BaseModelInvalid), or StorageError.
    """
    model = find_remote_model(base, folder, storage, weights=True)
    small = [name for name in model.names if matches(name, (*SMALL_FILES, INDEX))]
    source = model.fetch(small, folder)
    if source != folder:  # the hub's cache, in which nothing may be written
        for name in small:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, folder / name)
    try:
        if problem := find_problem(folder, weights=False):
            raise ValueError(problem)
        return Skeleton(folder, _write_weights(model, folder))
    except ValueError as error:
        raise BaseModelError(failures.broken_model(base.name, base.uri, str(error))) from error


def read_skeleton(folder: Path) -> Skeleton:
    """The skeleton of a complete model in a folder. Raises ValueError, in words."""
    found = {}
    for shard in find_shards(folder):
        if not (folder / shard).is_file():
            raise ValueError(f"{shard} is missing")
        try:
            found[shard] = read_tensors(folder / shard)
        except ValueError as error:
            raise ValueError(f"{shard} {error}") from error
    return Skeleton(folder, found)


def _write_weights(model: RemoteModel, folder: Path) -> dict[str, Tensors]:
    """Write all weight files of the model. Raises ValueError, in words."""
    shards = find_shards(folder)
    for shard in shards:
        if shard not in model.names:
            raise ValueError(f"{shard} is missing, which {INDEX} lists")
    found: dict[str, Tensors] = {}
    read = 0

    def write(shard: str) -> None:
        nonlocal read
        try:
            text, data_bytes = model.read_header(shard)
            read += len(text)
            if read > MAX_HEADERS:
                raise ValueError(f"and the others have headers of more than {MAX_HEADERS:,} bytes")
            found[shard] = parse_header(text, data_bytes)
        except ValueError as error:
            raise ValueError(f"{shard} {error}") from error
        with (folder / shard).open("wb") as file:
            file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
            file.truncate(LENGTH_BYTES + len(text) + data_bytes)

    fetch_in_parallel(write, shards)
    return {shard: found[shard] for shard in shards}
