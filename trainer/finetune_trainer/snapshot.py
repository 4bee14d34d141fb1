"""A rank's part of a checkpoint on its way to S3, while the training goes on."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_api.uris import S3Uri
from finetune_data.manifests import FileEntry, file_entry
from finetune_data.storage import Storage
from finetune_trainer.engine import Engine
from finetune_trainer.fragments import own_fragments

if TYPE_CHECKING:
    from torch import Tensor

NICENESS = 19  # the training comes first


def host_copy(engine: Engine) -> dict[str, "Tensor"]:
    """This rank's fragments as they are now, in the host's memory. The training waits for it."""
    import torch

    found: dict[str, Tensor] = {}
    for fragment in own_fragments(engine):
        for kind, tensor in fragment.tensors.items():
            copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            found[fragment.key(kind)] = copy.copy_(tensor, non_blocking=True)
    if engine.device.type == "cuda":
        torch.cuda.synchronize()
    return found


class Work(threading.Thread):
    """Something that goes on beside the training. `result` or `error` is there when it has ended.

    A low priority of its own: the threads that it starts inherit it.
    """

    def __init__(self, task: Callable[[], FileEntry | None]) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._task = task
        self.result: FileEntry | None = None
        self.error: Exception | None = None
        self.has_ended = False
        self.start()

    def run(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            self.result = self._task()
        except Exception as error:
            self.error = error
        self.has_ended = True


def upload(
    tensors: dict[str, "Tensor"], folder: Path, uri: S3Uri, storage: Storage
) -> Callable[[], FileEntry]:
    """What writes, hashes and uploads one shard. folder: for the file, until it is in S3."""

    def task() -> FileEntry:
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        name = uri.key.rpartition("/")[2]
        save_file(tensors, folder / name)
        tensors.clear()
        entry = file_entry(folder, name)
        storage.upload_file(folder / name, uri)
        shutil.rmtree(folder)
        return entry

    return task
