"""A cgroup with a memory limit for a child process, in version 1 or 2 of cgroups."""

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MEMBERSHIPS = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")
REMOVAL_SECONDS = 10.0  # the kernel refuses while a process is ending


@dataclass(frozen=True)
class MemoryLimit:
    """A cgroup of its own."""

    folder: Path
    kills_file: str

    def join(self) -> None:
        """Move the calling process into it: the `preexec_fn` of a child."""
        (self.folder / "cgroup.procs").write_text("0")

    @property
    def kills(self) -> int:
        """The processes in it that the kernel has killed for memory."""
        lines = (line.split() for line in (self.folder / self.kills_file).read_text().splitlines())
        return int(dict(line for line in lines if len(line) == 2).get("oom_kill", 0))


def find_parent() -> tuple[Path, str, str] | str:
    """The folder for a new cgroup, the file of the limit, and the file of kills; or the reason why
    this process cannot limit memory."""
    own = dict(line.split(":", 2)[1:] for line in MEMBERSHIPS.read_text().splitlines())
    first = next((path for names, path in own.items() if "memory" in names.split(",")), None)
    if first is not None:
        return ROOT / "memory" / first.lstrip("/"), "memory.limit_in_bytes", "memory.oom_control"
    folder = ROOT / own.get("", "/").lstrip("/")
    enabled = folder / "cgroup.subtree_control"
    if not enabled.exists():
        return f"{folder} is not the folder of a cgroup"
    if "memory" not in enabled.read_text().split():
        return f"{enabled} does not contain memory"
    return folder, "memory.max", "memory.events"


@contextmanager
def memory_limit(size: int, skip: Callable[[str], object]) -> Iterator[MemoryLimit]:
    """A new cgroup with `size` bytes. skip: called with the reason if that is not possible."""
    parent = find_parent()
    if isinstance(parent, str):
        skip(parent)
        return
    folder, limit_file, kills_file = parent
    own = folder / f"finetune-test-{uuid.uuid4().hex[:8]}"
    try:
        own.mkdir()
        (own / limit_file).write_text(str(size))
    except OSError as error:
        with contextlib.suppress(OSError):
            own.rmdir()
        skip(f"no cgroup can be made in {folder}: {error}")
        return
    try:
        yield MemoryLimit(own, kills_file)
    finally:
        end = time.monotonic() + REMOVAL_SECONDS
        while True:
            try:
                own.rmdir()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
