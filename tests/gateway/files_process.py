"""The gateway's endpoints of files in a process of its own, whose memory a test measures.

    python -m tests.gateway.files_process BUCKET

The store is that of the AWS_* variables. The first line of the output is the address; the process
ends with its input.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_storage.connect import open_storage
from tests.gateway.files_server import FilesServer

ROOT = Path(__file__).parents[2]


class FilesProcess:
    """The running process."""

    def __init__(self, url: str, process: int) -> None:
        self.url = url
        self._folder = Path("/proc") / str(process)

    def forget_peak(self) -> None:
        """Begin to measure the memory again."""
        (self._folder / "clear_refs").write_text("5")

    @property
    def peak(self) -> int:
        """The most memory that it had at once, in bytes."""
        lines = (self._folder / "status").read_text().splitlines()
        kibibytes = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kibibytes) * 1024


@contextmanager
def files_process(bucket: str, **settings: str) -> Iterator[FilesProcess]:
    """Run it, with the AWS_* variables of this process. settings: further variables."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.gateway.files_process", bucket],
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield FilesProcess(process.stdout.readline().strip(), process.pid)
    finally:
        process.communicate(timeout=60)


if __name__ == "__main__":
    with FilesServer(open_storage(), sys.argv[1], filesQuotaBytes=0) as server:
        print(server.url, flush=True)
        sys.stdin.read()
