"""Reads a checkpoint: each rank its own fragments, and each pod the shards that its ranks need.

If nothing about the ranks has changed, a rank needs exactly the shard that it wrote. Otherwise, the
headers of all shards show which ones contain the fragments of this pod's ranks. A shard is always
downloaded and verified as a whole, because the manifest has one digest per shard.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api.errors import FailureError
from finetune_api.uris import S3Uri
from finetune_storage.manifests import FileEntry, find_damage
from finetune_storage.s3 import Storage
from finetune_storage.transfers import fetch_in_parallel
from finetune_trainer import failures
from finetune_trainer.engine import fragments, safetensors_header
from finetune_trainer.engine.deepspeed import Engine

if TYPE_CHECKING:
    from torch import Tensor

Sizes = dict[str, int]  # of the fragments in a shard, in numbers, by key
SIZES = "sizes.json"  # of all shards, for the other ranks of the pod
_KEY = re.compile(r"(.+)@(\d+)#(\w+)")
_SHARD = re.compile(r"[\w.-]+\.safetensors")


@dataclass(frozen=True)
class _Part:
    """A fragment in a shard, with the range of its parameter that it holds."""

    path: str
    key: str
    start: int
    stop: int


_Parts = dict[tuple[str, str], list[_Part]]  # by the parameter's name and the kind


@dataclass(frozen=True)
class Downloaded:
    """The shards in this pod, and what this rank needs from them."""

    folder: Path
    parts: _Parts


class CheckpointReader:
    """Reads one checkpoint. All ranks call every method together."""

    def __init__(
        self,
        uri: S3Uri,
        files: Sequence[FileEntry],
        storage: Storage,
        engine: Engine,
        *,
        folder: Path,
        progress: Callable[[str], None],
    ) -> None:
        """files: one shard for each rank that wrote the checkpoint, in the order of ranks."""
        self._uri = uri
        self._files = {entry.path: entry for entry in files}
        self._storage = storage
        self._engine = engine
        self._folder = folder
        self._progress = progress
        self._is_first = engine.coordinates.local_rank == 0  # of the pod

    def download(self) -> Downloaded | None:
        """Download what this pod needs. None, on all ranks, if any pod finds damage.

        Raises FailureError if the checkpoint is intact but not one of this model.
        """
        if self._is_damaged(self._listing_damage):
            return None
        sizes = self._own_shard()
        if sizes is not None:
            known = _parts(sizes)
        else:
            if self._is_damaged(self._fetch_sizes):
                return None
            known = _parts(json.loads((self._folder / SIZES).read_bytes()))
            self._check(known)
        needed = self._needed(known)
        paths = self._of_the_pod({part.path for parts in needed.values() for part in parts})
        if self._is_damaged(lambda: self._fetch(paths)):
            return None
        return Downloaded(self._folder, needed)

    def load(self, downloaded: Downloaded, step: int) -> None:
        """Write the weights and moments to the engine, and delete the download."""
        from safetensors import safe_open

        self._engine.start_at(step)
        shards: dict[str, Any] = {}
        for fragment in fragments.own_fragments(self._engine):
            for kind, tensor in fragment.tensors.items():
                for part in downloaded.parts[fragment.name, kind]:
                    if part.path not in shards:
                        shards[part.path] = safe_open(downloaded.folder / part.path, "pt")
                    shard = shards[part.path].get_slice(part.key)
                    _copy(shard, part, tensor, fragment.start)
        fragments.complete(self._engine)
        self.delete()

    def delete(self) -> None:
        """Delete the download, once no rank of the pod reads it."""
        self._engine.barrier()
        if self._is_first:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _is_damaged(self, find: Callable[[], str | None]) -> bool:
        """Whether any pod finds damage. find: called by one rank of the pod; returns the damage."""
        damage = find() if self._is_first else None
        if not self._engine.any(damage is not None):
            return False
        if damage is not None:
            print(f"warning: skipping the damaged checkpoint at {self._uri}: {damage}", flush=True)
        self.delete()
        return True

    def _listing_damage(self) -> str | None:
        start = len(self._uri.key) + 1
        sizes = {entry.key[start:]: entry.size for entry in self._storage.list(self._uri)}
        for path, entry in self._files.items():
            if not _SHARD.fullmatch(path):
                return f"{path!r} is not the name of a shard"
            if path not in sizes:
                return f"{path} is missing"
            if sizes[path] != entry.size:
                return f"{path} has {sizes[path]:,} bytes instead of {entry.size:,}"
        return None

    def _own_shard(self) -> dict[str, Sizes] | None:
        """The fragments of each rank's own shard; None if any rank needs others."""
        engine = self._engine
        found, paths = {}, list(self._files)
        if len(paths) == engine.coordinates.ranks:
            path = paths[engine.coordinates.rank]
            try:
                sizes = self._sizes(path)
            except ValueError:
                sizes = {}
            found = {path: sizes} if sizes == _own_sizes(engine) else {}
        return None if engine.any(not found) else found

    def _sizes(self, path: str) -> Sizes:
        """The fragments of a shard, from its header. Raises ValueError for a damaged header."""
        uri, size = self._uri.child(path), self._files[path].size
        start = safetensors_header.LENGTH_BYTES
        length = safetensors_header.length(self._storage.read_range(uri, 0, start), size)
        tensors = safetensors_header.decode(self._storage.read_range(uri, start, length))
        other = next((it.dtype for it in tensors.values() if it.dtype != "F32"), None)
        if other is not None:
            raise ValueError(f"it contains numbers of type {other}")
        return {key: prod(tensor.shape) for key, tensor in tensors.items()}

    def _fetch_sizes(self) -> str | None:
        """Read the headers of all shards for the ranks of this pod. Returns the damage."""
        found: dict[str, Sizes] = {}

        def fetch(path: str) -> None:
            found[path] = self._sizes(path)

        try:
            fetch_in_parallel(fetch, self._files)
        except ValueError as error:
            return str(error)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / SIZES).write_text(json.dumps(found))
        return None

    def _needed(self, known: _Parts) -> _Parts:
        """The parts that overlap with this rank's fragments."""
        found: _Parts = {}
        for fragment in fragments.own_fragments(self._engine):
            for kind, tensor in fragment.tensors.items():
                stop = fragment.start + tensor.numel()
                found[fragment.name, kind] = [
                    part
                    for part in known.get((fragment.name, kind), [])
                    if part.start < stop and part.stop > fragment.start
                ]
        return found

    def _check(self, known: _Parts) -> None:
        """Raise FailureError if the checkpoint does not contain every parameter exactly once."""
        for name, parameter in self._engine.parameters():
            size = prod(self._engine.shape(parameter))
            for kind in fragments.KINDS:
                end = 0
                for part in sorted(known.get((name, kind), []), key=lambda part: part.start):
                    if part.start != end:
                        break
                    end = part.stop
                if end != size:
                    difference = f"parameter {name} has {end:,} numbers instead of {size:,}"
                    raise FailureError(failures.foreign_checkpoint(difference))

    def _of_the_pod(self, paths: set[str]) -> list[str]:
        """The shards that the ranks of this pod need, on its first rank; on others, any."""
        import torch

        coordinates = self._engine.coordinates
        row = [coordinates.local_rank, *(path in paths for path in self._files)]
        mine = torch.tensor(row, dtype=torch.uint8, device=self._engine.device)
        rows = self._engine.gather(mine).tolist()[coordinates.rank :]
        end = next((i for i, row in enumerate(rows) if i and row[0] == 0), len(rows))
        needed = (any(column) for column in list(zip(*rows[:end], strict=True))[1:])
        return [path for path, is_needed in zip(self._files, needed, strict=True) if is_needed]

    def _fetch(self, paths: Sequence[str]) -> str | None:
        """Download and verify shards. Returns the damage."""
        shown = -1

        def show(done: int, total: int) -> None:
            nonlocal shown
            percent = 100 * done // max(1, total)
            if percent > shown:
                shown = percent
                self._progress(f"downloading the checkpoint: {percent} %")

        self._storage.download_prefix(self._uri, self._folder, paths, show)
        self._progress("verifying the checkpoint")
        return find_damage(self._folder, [self._files[path] for path in paths])


def _parts(sizes: Mapping[str, Sizes]) -> _Parts:
    found: _Parts = {}
    for path, keys in sizes.items():
        for key, size in keys.items():
            if match := _KEY.fullmatch(key):
                start = int(match[2])
                part = _Part(path, key, start, start + size)
                found.setdefault((match[1], match[3]), []).append(part)
    return found


def _own_sizes(engine: Engine) -> Sizes:
    return {
        fragment.key(kind): tensor.numel()
        for fragment in fragments.own_fragments(engine)
        for kind, tensor in fragment.tensors.items()
    }


def _copy(shard: Any, part: _Part, target: "Tensor", start: int) -> None:
    """Copy the numbers that both hold. shard: a slice of the file. start: of the target."""
    begin, end = max(part.start, start), min(part.stop, start + target.numel())
    target[begin - start : end - start].copy_(shard[begin - part.start : end - part.start])
