"""The checkpoints of a run in S3: which ones exist, which one to continue from, what to delete.

A checkpoint without a manifest does not exist. An attempt deletes only what it or an older attempt
has written: the names of shards contain the attempt, and so does the manifest.
"""

import re
from typing import Literal

from pydantic import ValidationError

from finetune_api.layout import MANIFEST, RunLayout
from finetune_api.names import Reason
from finetune_api.wire import Stored
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry, to_bytes
from finetune_storage.s3 import Storage
from finetune_trainer.attempt_fence import AttemptFence
from finetune_trainer.checkpoint.state import TrainingState

KEEP = 2  # the newest checkpoints; the best one is kept in addition
_FILE = re.compile(r"step-(\d+)/(.+)")
_SHARD = re.compile(r"rank-\d+-of-\d+-attempt-(\d+)\.safetensors")


class CheckpointManifest(Stored):
    """`checkpoints/step-…/manifest.json`."""

    kind: Literal["checkpoint"] = "checkpoint"
    attempt: int
    ranks: int  # ranks that wrote it; any number may read it
    base_revision: str | None = None  # of the base model; None: of an earlier version
    state: TrainingState
    files: list[FileEntry]


class CheckpointCatalog:
    """The checkpoints as one attempt sees them. Every method raises StorageError."""

    def __init__(self, layout: RunLayout, storage: Storage, fence: AttemptFence) -> None:
        self._layout = layout
        self._storage = storage
        self._fence = fence

    def newest(self, refused: set[int]) -> int:
        """The step of the newest checkpoint to continue from; 0: none. refused: damaged ones."""
        for step, names in self._files().items():
            if MANIFEST not in names or step in refused:
                continue
            manifest = self.read(step)
            # an unreadable one is refused later, by all ranks together
            if manifest is None or not self._fence.is_late(manifest.attempt, step):
                return step
            print(
                f"warning: skipping the checkpoint of step {step}: attempt {manifest.attempt} "
                "completed it after a newer attempt had started",
                flush=True,
            )
        return 0

    def read(self, step: int) -> CheckpointManifest | None:
        """The manifest of a complete checkpoint; None if it is not readable, or deleted by now."""
        try:
            data = self._storage.read_bytes(self._layout.checkpoint(step).child(MANIFEST))
            return CheckpointManifest.model_validate_json(data)
        except ValidationError:
            return None
        except StorageError as error:
            if error.failure.code == Reason.DATA_NOT_FOUND:
                return None
            raise

    def complete(self, manifest: CheckpointManifest) -> None:
        """Write the manifest, which makes the checkpoint exist."""
        uri = self._layout.checkpoint(manifest.state.step).child(MANIFEST)
        self._storage.write_bytes(uri, to_bytes(manifest))

    def prune(self, state: TrainingState) -> None:
        """Delete what is no longer needed, up to the step of a checkpoint that is complete.

        All checkpoints but the newest and the best, those without a manifest after a crash, and in
        the kept ones the shards of attempts that died before they could complete it.
        """
        files = self._files()
        complete = [step for step, names in files.items() if MANIFEST in names]
        kept = {*complete[:KEEP], state.best_step, state.step}
        for step, names in files.items():
            if step > state.step:
                continue
            leftover = self._leftover(step, names) if step in kept else self._own(step, names)
            for name in leftover:
                self._storage.delete(self._layout.checkpoint(step).child(name))
        self.abort_uploads()

    def abort_uploads(self) -> None:
        """Abort the uploads in parts of older attempts, whose ranks were killed.

        Those of this attempt stay: Kubernetes may have started a rank twice, and both upload.
        """
        own = self._fence.attempt
        self._storage.abort_uploads(
            self._layout.checkpoints,
            lambda upload: (_attempt_of(upload.key.rpartition("/")[2]) or own) < own,
        )

    def _leftover(self, step: int, names: list[str]) -> list[str]:
        """The shards of a kept checkpoint that its manifest does not list."""
        shards = {name: found for name in names if (found := _attempt_of(name))}
        if len(set(shards.values())) < 2 or MANIFEST not in names:
            return []
        manifest = self.read(step)
        if manifest is None:
            return []
        listed = {entry.path for entry in manifest.files}
        return [
            name
            for name, attempt in shards.items()
            if name not in listed and attempt <= self._fence.attempt
        ]

    def _own(self, step: int, names: list[str]) -> list[str]:
        """The files that no newer attempt wrote, the manifest first.

        Without its manifest, a partly deleted checkpoint does not look complete.
        """
        own = [name for name in names if (_attempt_of(name) or 0) <= self._fence.attempt]
        if len(own) < len(names) and MANIFEST in own:
            manifest = self.read(step)
            if manifest is None or manifest.attempt > self._fence.attempt:
                own.remove(MANIFEST)
        return sorted(own, key=lambda name: name != MANIFEST)

    def _files(self) -> dict[int, list[str]]:
        """The names of the files of each step, the newest step first."""
        start = len(self._layout.checkpoints.key) + 1
        found: dict[int, list[str]] = {}
        for entry in self._storage.list(self._layout.checkpoints):
            if match := _FILE.fullmatch(entry.key[start:]):
                found.setdefault(int(match[1]), []).append(match[2])
        return dict(sorted(found.items(), reverse=True))


def shard_name(rank: int, ranks: int, attempt: int) -> str:
    """The name contains the attempt: a lost pod cannot replace a shard of a later attempt."""
    return f"rank-{rank:05d}-of-{ranks:05d}-attempt-{attempt}.safetensors"


def _attempt_of(name: str) -> int | None:
    """The attempt that wrote a shard; None for any other file."""
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match else None
