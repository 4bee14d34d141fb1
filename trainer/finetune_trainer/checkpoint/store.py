"""Saves and restores checkpoints: each rank's fp32 weights and Adam moments, the manifest last.

Any number of ranks can read a checkpoint that any other number wrote. A checkpoint without a
manifest does not exist, and one whose files do not match the manifest is skipped. The files are
safetensors and JSON; nothing is unpickled. Saving is asynchronous: `begin` copies, `proceed`
advances a save whose current part has ended, and `finish` waits.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune_api.errors import FailureError
from finetune_api.layout import RunLayout
from finetune_api.names import Reason
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry
from finetune_storage.s3 import Storage
from finetune_trainer import failures
from finetune_trainer.attempt_fence import AttemptFence
from finetune_trainer.checkpoint.catalog import (
    CheckpointCatalog,
    CheckpointManifest,
    shard_name,
)
from finetune_trainer.checkpoint.restore import CheckpointReader
from finetune_trainer.checkpoint.snapshot import BackgroundTask, HostCopy, state_of, upload
from finetune_trainer.checkpoint.state import TrainingState
from finetune_trainer.engine.deepspeed import Engine


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being saved: first the shards, then the manifest."""

    state: TrainingState
    task: BackgroundTask
    begin: float
    is_uploaded: bool = False


class Checkpoints:
    """The checkpoints of one run. All ranks call every method together."""

    def __init__(
        self,
        layout: RunLayout,
        storage: Storage,
        engine: Engine,
        folder: Path,
        attempt: int,
        *,
        base_revision: str | None = None,
        before_manifest: Callable[[], None] = lambda: None,
        progress: Callable[[str], None] = lambda detail: None,
    ) -> None:
        """before_manifest: called by rank 0 before it writes a manifest.

        base_revision: of the base model. A checkpoint of another one is refused.
        progress: gets details to show while a checkpoint is restored.
        """
        self._layout = layout
        self._storage = storage
        self._engine = engine
        self._folder = folder
        self._attempt = attempt
        self._fence = AttemptFence(layout, storage, attempt)
        self._catalog = CheckpointCatalog(layout, storage, self._fence)
        self._base_revision = base_revision
        self._before_manifest = before_manifest
        self._progress = progress
        self._copy = HostCopy(folder)
        self._pending: _Pending | None = None
        self.copy_seconds = 0.0  # of the last copy, for which training waits
        self.upload_seconds = 0.0  # from the copy of the last checkpoint until it was complete

    # --- saving ----------------------------------------------------------------------------------

    def begin(self, state: TrainingState) -> None:
        """Copy this rank's part; the upload continues in the background."""
        self.finish()
        begin = time.monotonic()
        self._copy.take(state_of(self._engine))
        self.copy_seconds = time.monotonic() - begin
        coordinates = self._engine.coordinates
        name = shard_name(coordinates.rank, coordinates.ranks, self._attempt)
        uri = self._layout.checkpoint(state.step).child(name)
        self._pending = _Pending(state, BackgroundTask(upload(self._copy, uri)), begin)

    @property
    def is_saving(self) -> bool:
        """Whether a checkpoint is being saved."""
        return self._pending is not None

    @property
    def has_ended(self) -> bool:
        """Whether the current part of the save has ended on this rank, successfully or not."""
        return self._pending is not None and self._pending.task.has_ended

    def proceed(self) -> TrainingState | None:
        """Advance the save once `has_ended` is true on all ranks.

        Returns the state of a checkpoint that is now complete. If S3 is unavailable, the checkpoint
        is abandoned with a warning, since the next one may succeed. Raises all other errors.
        """
        pending = self._pending
        assert pending is not None
        pending.task.join()
        error = pending.task.error
        if self._engine.any(error is not None):
            self._pending = None
            if error is not None:
                _warn_if_unavailable(error, pending.state.step)
            return None
        if pending.is_uploaded:
            self._pending = None
            self.upload_seconds = time.monotonic() - pending.begin
            return pending.state
        assert pending.task.result is not None
        entries = self._gather(pending.task.result)  # all shards are in S3 now
        is_first = self._engine.coordinates.rank == 0
        task = BackgroundTask(lambda: self._complete(pending.state, entries) if is_first else None)
        self._pending = _Pending(pending.state, task, pending.begin, is_uploaded=True)
        return None

    def finish(self) -> TrainingState | None:
        """Wait for the current save. Returns the state of the complete checkpoint, if any."""
        done = None
        while self._pending is not None:
            done = self.proceed()
        return done

    def _complete(self, state: TrainingState, entries: list[FileEntry]) -> None:
        self._before_manifest()
        ranks = self._engine.coordinates.ranks
        manifest = CheckpointManifest(
            attempt=self._attempt,
            ranks=ranks,
            base_revision=self._base_revision,
            state=state,
            files=entries,
        )
        self._catalog.complete(manifest)
        self._catalog.prune(state)

    def _gather(self, entry: FileEntry) -> list[FileEntry]:
        import torch

        digest = bytes.fromhex(entry.sha256) + entry.size.to_bytes(8, "little")
        mine = torch.tensor(list(digest), dtype=torch.uint8, device=self._engine.device)
        ranks = self._engine.coordinates.ranks
        rows = [bytes(row.tolist()) for row in self._engine.gather(mine)]
        return [
            FileEntry(
                path=shard_name(rank, ranks, self._attempt),
                size=int.from_bytes(row[32:], "little"),
                sha256=row[:32].hex(),
            )
            for rank, row in enumerate(rows)
        ]

    # --- restoring -------------------------------------------------------------------------------

    def restore(self) -> TrainingState:
        """Restore the newest intact checkpoint. Without one, the state is that of a new run.

        Raises FailureError (BaseModelChanged) if it was trained from other files of the base model.
        """
        refused: set[int] = set()
        state = None
        while state is None and (step := self._agree_on_newest(refused)):
            state = self._read(step, self._folder / f"step-{step}")
            refused.add(step)
        state = state or TrainingState()
        if self._engine.coordinates.rank == 0:
            self._fence.record_start(state.step)
            self._tidy(state)
        return state

    def _tidy(self, state: TrainingState) -> None:
        """Delete what attempts left that ended while they saved, or before they could prune."""
        try:
            self._catalog.prune(state)
        except StorageError as error:
            print(f"warning: files of earlier attempts were not deleted: {error}", flush=True)

    def _read(self, step: int, folder: Path) -> TrainingState | None:
        """Restore one checkpoint. None, on all ranks, if it is damaged."""
        uri, manifest = self._layout.checkpoint(step), self._catalog.read(step)
        if self._engine.any(manifest is None):
            if manifest is None:
                print(f"warning: skipping {uri}: its manifest is not readable", flush=True)
            return None
        assert manifest is not None
        saved, used = manifest.base_revision, self._base_revision
        if saved is not None and used is not None and saved != used:
            raise FailureError(failures.other_base(uri, saved, used))
        reader = CheckpointReader(
            *(uri, manifest.files, self._storage, self._engine),
            folder=folder,
            progress=self._progress,
        )
        downloaded = reader.download()
        if downloaded is None:
            return None
        reader.load(downloaded, manifest.state.step)
        return manifest.state

    def _agree_on_newest(self, refused: set[int]) -> int:
        """The step of the newest checkpoint as rank 0 sees it, on all ranks; 0: none."""
        import torch

        newest = 0
        if self._engine.coordinates.rank == 0:
            newest = self._catalog.newest(refused)
        value = torch.tensor([newest], dtype=torch.float64, device=self._engine.device)
        return int(self._engine.sum(value).item())


def _warn_if_unavailable(error: Exception, step: int) -> None:
    """Warn if S3 is unavailable; raise every other error."""
    if not (isinstance(error, StorageError) and error.failure.code == Reason.S3_UNAVAILABLE):
        raise error
    print(f"warning: the checkpoint of step {step} was not saved: {error}", flush=True)
