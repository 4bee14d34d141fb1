"""A rank's part of a checkpoint on its way to S3, while the training goes on.

The copy is a file of safetensors in memory, and a process of the lowest priority (`shard_upload`)
hashes and uploads it. A thread would hold the interpreter's lock while it waits for a CPU that the
training keeps busy, and the training would wait for the lock.
"""

import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from finetune_api.outcome import Failure
from finetune_api.uris import S3Uri
from finetune_storage.errors import StorageError
from finetune_storage.manifests import FileEntry
from finetune_trainer.engine.deepspeed import Engine
from finetune_trainer.engine.fragments import own_fragments

if TYPE_CHECKING:
    from torch import Tensor

ALIGNMENT = 8  # bytes; where the numbers of a safetensors file begin


class HostCopy:
    """Tensors as they were at one moment, as a file that another process can read.

    The memory stays for the next one: the training waits four times as long for new pages.
    """

    def __init__(self, folder: Path) -> None:
        """folder: where the system has no files in memory."""
        self._file = _memory_file(folder)
        self._memory: mmap.mmap | None = None

    def take(self, tensors: dict[str, "Tensor"]) -> None:
        """tensors: fp32, anywhere, of the same names and sizes each time."""
        import torch

        header = safetensors_header((name, tensor.numel()) for name, tensor in tensors.items())
        if self._memory is None:
            size = len(header) + 4 * sum(tensor.numel() for tensor in tensors.values())
            os.truncate(self._file.fileno(), size)
            self._memory = mmap.mmap(self._file.fileno(), size)
        self._memory[: len(header)] = header
        start = len(header)
        for tensor in tensors.values():
            if count := tensor.numel():
                kind = torch.float32
                place = torch.frombuffer(self._memory, dtype=kind, count=count, offset=start)
                place.copy_(tensor.flatten())
                start += 4 * count

    def fileno(self) -> int:
        """For a child that inherits it."""
        return self._file.fileno()


def _memory_file(folder: Path) -> IO[bytes]:
    """In memory where the system has that: a disk would hold up who writes faster than it does."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("checkpoint"), "r+b")
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=folder)


def safetensors_header(sizes: Iterable[tuple[str, int]]) -> bytes:
    """Of flat fp32 tensors behind each other: what stands before their bytes in the file."""
    entries, end = {}, 0
    for name, size in sizes:
        begin, end = end, end + 4 * size
        entries[name] = {"dtype": "F32", "shape": [size], "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def state_of(engine: Engine) -> dict[str, "Tensor"]:
    """This rank's fragments, not copies."""
    return {
        fragment.key(kind): tensor
        for fragment in own_fragments(engine)
        for kind, tensor in fragment.tensors.items()
    }


class BackgroundTask(threading.Thread):
    """Goes on beside the training. `result` or `error` is there when it has ended."""

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
    """What hashes and uploads one shard."""

    def task() -> FileEntry:
        command = [sys.executable, "-m", "finetune_trainer.checkpoint.shard_upload"]
        process = subprocess.Popen(
            [*command, str(copy.fileno()), str(uri)],
            stdin=subprocess.PIPE,  # closed by this process's end, whatever ends it
            stdout=subprocess.PIPE,
            pass_fds=[copy.fileno()],
            process_group=0,  # a rank that is asked to stop wants its checkpoint whole
            text=True,
        )
        assert process.stdout is not None
        with process:
            answer = process.stdout.read()
        if process.returncode == 0:
            return FileEntry.model_validate_json(answer)
        if answer:
            raise StorageError(Failure.model_validate_json(answer))
        raise RuntimeError(f"the upload of {uri} ended with code {process.returncode}")

    return task
