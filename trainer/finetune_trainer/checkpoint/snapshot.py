"""Copies a rank's part of a checkpoint, and uploads it while training continues.

The copy is a safetensors file in memory. A process of the lowest priority (`shard_upload`) hashes
and uploads it. A thread would hold the interpreter lock while it waits for a CPU that training
keeps busy, and training would wait for the lock.
"""

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finetune_api.outcome import Failure
from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.fragments import own_fragments
from finetune_trainer.engine.safetensors_header import TensorType, encode

if TYPE_CHECKING:
    from torch import Tensor


class HostCopy:
    """A copy of tensors at one moment, as a file that another process can read.

    The next copy reuses the memory: with new pages, training waits four times as long.
    """

    def __init__(self, folder: Path) -> None:
        """folder: used if the system does not support files in memory."""
        self._file = _memory_file(folder)
        self._memory: mmap.mmap | None = None

    def take(self, tensors: dict[str, "Tensor"]) -> None:
        """Replace the copy. tensors: fp32, on any device; the same names and sizes each time."""
        import torch

        kinds = {name: TensorType("F32", (tensor.numel(),)) for name, tensor in tensors.items()}
        header, starts = encode(kinds)
        if self._memory is None:
            size = len(header) + sum(kind.size for kind in kinds.values())
            os.truncate(self._file.fileno(), size)
            self._memory = mmap.mmap(self._file.fileno(), size)
        self._memory[: len(header)] = header
        for name, tensor in tensors.items():
            if count := tensor.numel():
                target = torch.frombuffer(
                    self._memory, dtype=torch.float32, count=count, offset=starts[name]
                )
                target.copy_(tensor.flatten())

    def fileno(self) -> int:
        """The descriptor for a child process."""
        return self._file.fileno()


def _memory_file(folder: Path) -> IO[bytes]:
    """A file in memory if the system supports it, because a disk may be slower than the copy."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("checkpoint"), "r+b")
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


def state_of(engine: Engine) -> dict[str, "Tensor"]:
    """This rank's fragments by their keys in the shard; not copies."""
    return {
        fragment.key(kind): tensor
        for fragment in own_fragments(engine)
        for kind, tensor in fragment.tensors.items()
    }


class BackgroundTask(threading.Thread):
    """Runs while training continues. Sets `result` or `error` before `has_ended`."""

    def __init__(self, task: Callable[[], FileEntry | None]) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._task = task
        self.result: FileEntry | None = None
        self.error: Exception | None = None
        self.has_ended = False
        self.start()

    def run(self) -> None:
        try:
            self.result = self._task()
        except Exception as error:
            self.error = error
        self.has_ended = True


def upload(copy: HostCopy, uri: S3Uri) -> Callable[[], FileEntry]:
    """A task that hashes and uploads one shard."""

    def task() -> FileEntry:
        code, answer = _upload(copy, uri)
        if code == -signal.SIGTERM:  # meant for the rank, before the process had its own group
            code, answer = _upload(copy, uri)
        if code == 0:
            return FileEntry.model_validate_json(answer)
        if answer:
            raise StorageError(Failure.model_validate_json(answer))
        raise RuntimeError(f"the upload of {uri} failed with exit code {code}")

    return task


def _upload(copy: HostCopy, uri: S3Uri) -> tuple[int, str]:
    """The exit code and the answer of the process that uploads."""
    command = [sys.executable, "-m", "finetune_trainer.checkpoint.shard_upload"]
    process = subprocess.Popen(
        [*command, str(copy.fileno()), str(uri)],
        stdin=subprocess.PIPE,  # closed when this process ends, for any reason
        stdout=subprocess.PIPE,
        pass_fds=[copy.fileno()],
        process_group=0,  # SIGTERM to the rank must not interrupt its upload
        text=True,
    )
    assert process.stdout is not None
    with process:
        answer = process.stdout.read()
    return process.returncode, answer
