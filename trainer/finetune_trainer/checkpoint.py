"""Checkpoints: every rank's own shard of fp32 weights and Adam moments, the manifest last.

Whole tensors, each in exactly one shard, so any number of ranks can read what any other wrote.
A prefix without a manifest does not exist, and one whose bytes are not what it says is passed over.
Safetensors and JSON: nothing here is unpickled.
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.uris import S3Uri
from finetune_api.wire import Stored
from finetune_data.manifests import FileEntry, file_entry, find_damage, to_bytes
from finetune_data.storage import Storage
from finetune_trainer.engine import MOMENTS, Engine
from finetune_trainer.state import TrainingState

if TYPE_CHECKING:
    from torch import Tensor

KEEP = 2

_STEP = re.compile(r"step-(\d+)/(.+)")


class CheckpointManifest(Stored):
    """`checkpoints/step-…/manifest.json`."""

    kind: Literal["checkpoint"] = "checkpoint"
    attempt: int
    ranks: int  # that wrote it; any number may read it
    state: TrainingState
    files: list[FileEntry]


class Checkpoints:
    """Those of one run. Every method is called by all ranks together."""

    def __init__(
        self, layout: RunLayout, storage: Storage, engine: Engine, folder: Path, attempt: int
    ) -> None:
        self._layout = layout
        self._storage = storage
        self._engine = engine
        self._folder = folder
        self._attempt = attempt

    # --- saving ----------------------------------------------------------------------------------

    def save(self, state: TrainingState) -> None:
        """It exists, durably, when this returns; older ones but one are gone."""
        from safetensors.torch import save_file

        place = self._engine.place
        uri = self._layout.checkpoint(state.step)
        folder = self._folder / f"save-{place.local_rank}"
        folder.mkdir(parents=True, exist_ok=True)
        name = shard_name(place.rank, place.ranks)
        save_file(self._read_share(), folder / name)
        entry = file_entry(folder, name)
        self._storage.upload_file(folder / name, uri.child(name))
        shutil.rmtree(folder)
        entries = self._gather(entry)  # all shards are in S3 from here on
        if place.rank == 0:
            manifest = CheckpointManifest(
                attempt=self._attempt, ranks=place.ranks, state=state, files=entries
            )
            self._storage.write_bytes(uri.child(MANIFEST), to_bytes(manifest))
            self._prune()

    def _read_share(self) -> dict[str, "Tensor"]:
        """This rank's parameters; all ranks take part in reading each."""
        parameters = list(self._engine.parameters())
        sizes = [_numel(self._engine.shape(parameter)) for _, parameter in parameters]
        owners = share(sizes, self._engine.place.ranks)
        found: dict[str, Tensor] = {}
        for (name, parameter), owner in zip(parameters, owners, strict=True):
            weights = self._engine.read_weights(parameter)
            moments = self._engine.read_moments(parameter)
            if owner == self._engine.place.rank:
                found[name] = weights.cpu().contiguous()
                for key in MOMENTS:
                    found[f"{name}#{key}"] = moments[key].cpu().contiguous()
        return found

    def _gather(self, entry: FileEntry) -> list[FileEntry]:
        import torch

        digest = bytes.fromhex(entry.sha256) + entry.size.to_bytes(8, "little")
        mine = torch.tensor(list(digest), dtype=torch.uint8, device=self._engine.device)
        ranks = self._engine.place.ranks
        rows = [bytes(row.tolist()) for row in self._engine.gather(mine)]
        return [
            FileEntry(
                path=shard_name(rank, ranks),
                size=int.from_bytes(row[32:], "little"),
                sha256=row[:32].hex(),
            )
            for rank, row in enumerate(rows)
        ]

    def _prune(self) -> None:
        """Keep the last ones; what a crash left without a manifest goes as well."""
        complete = self._complete_steps()
        for step in complete[KEEP:]:
            remove(self._storage, self._layout.checkpoint(step))

    # --- restoring -------------------------------------------------------------------------------

    def restore(self) -> TrainingState:
        """From the newest that is whole; an empty state where there is none."""
        refused: set[int] = set()
        while step := self._agree_on_newest(refused):
            uri = self._layout.checkpoint(step)
            folder = self._folder / f"step-{step}"
            manifest = self._fetch(uri, folder)
            if manifest is not None:
                self._load(folder, manifest)
                self._engine.barrier()
                if self._engine.place.local_rank == 0:
                    shutil.rmtree(folder)
                return manifest.state
            refused.add(step)
        return TrainingState()

    def _agree_on_newest(self, refused: set[int]) -> int:
        """Rank 0 looks, all follow; 0: none."""
        import torch

        newest = 0
        if self._engine.place.rank == 0:
            newest = next((s for s in self._complete_steps() if s not in refused), 0)
        value = torch.tensor([newest], dtype=torch.float64, device=self._engine.device)
        return int(self._engine.sum(value).item())

    def _complete_steps(self) -> list[int]:
        """Steps with a manifest, the newest first."""
        start = len(self._layout.checkpoints.key) + 1
        names = [entry.key[start:] for entry in self._storage.list(self._layout.checkpoints)]
        found = [match for name in names if (match := _STEP.fullmatch(name))]
        return sorted({int(match[1]) for match in found if match[2] == MANIFEST}, reverse=True)

    def _fetch(self, uri: S3Uri, folder: Path) -> CheckpointManifest | None:
        """One download a pod; None, on all ranks, where any pod found damage."""
        import torch

        damage = None
        if self._engine.place.local_rank == 0:
            manifest = self._read_manifest(uri)
            damage = "its manifest can't be read"
            if manifest is not None:
                paths = [entry.path for entry in manifest.files]
                self._storage.download_prefix(uri, folder, paths)
                damage = find_damage(folder, manifest.files)
        bad = torch.tensor([float(damage is not None)], dtype=torch.float64)
        if self._engine.sum(bad.to(self._engine.device)).item():
            if damage is not None:
                print(f"the checkpoint at {uri} is passed over: {damage}", flush=True)
            return None
        return self._read_manifest(uri)

    def _read_manifest(self, uri: S3Uri) -> CheckpointManifest | None:
        try:
            return CheckpointManifest.model_validate_json(
                self._storage.read_bytes(uri.child(MANIFEST))
            )
        except ValidationError:
            return None

    def _load(self, folder: Path, manifest: CheckpointManifest) -> None:
        from safetensors import safe_open

        self._engine.start_at(manifest.state.step)
        shards: list[Any] = [safe_open(folder / entry.path, "pt") for entry in manifest.files]
        where = {name: shard for shard in shards for name in shard.keys()}  # noqa: SIM118
        for name, parameter in self._engine.parameters():
            tensors = {
                key: where[full].get_tensor(full).to(self._engine.device)
                for key, full in {"": name, **{k: f"{name}#{k}" for k in MOMENTS}}.items()
            }
            self._engine.write_state(parameter, tensors.pop(""), tensors)


def shard_name(rank: int, ranks: int) -> str:
    return f"rank-{rank:05d}-of-{ranks:05d}.safetensors"


def share(sizes: Sequence[int], ranks: int) -> list[int]:
    """The rank that writes each parameter: the largest first, to the one with the least so far."""
    load = [0] * ranks
    owners = [0] * len(sizes)
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        owners[index] = min(range(ranks), key=lambda rank: (load[rank], rank))
        load[owners[index]] += sizes[index]
    return owners


def remove(storage: Storage, uri: S3Uri) -> None:
    """The manifest first: half a checkpoint must not look like one."""
    keys = [uri.child(MANIFEST).key, *(entry.key for entry in storage.list(uri))]
    for key in keys:
        storage.delete(S3Uri(uri.bucket, key))


def _numel(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
