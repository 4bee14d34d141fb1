"""The cgroup of the cluster, in which the kubelet creates those of pods; cgroup v1 and v2.

The cluster owns `<hierarchy>/finetune-devcluster` and nothing else.
"""

import contextlib
import os
import time
from pathlib import Path

from devcluster import paths

ROOT = Path("/sys/fs/cgroup")
WANTED_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "hugetlb")


def is_v2(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


def hierarchies(mounts: str) -> list[Path]:
    """The mount points of all cgroup hierarchies, from the text of /proc/mounts."""
    lines = [line.split() for line in mounts.splitlines()]
    return [
        Path(fields[1]) for fields in lines if len(fields) > 2 and fields[2].startswith("cgroup")
    ]


def own_folders() -> list[Path]:
    mounts = Path("/proc/mounts").read_text()
    return [folder / paths.NAME for folder in hierarchies(mounts) if (folder / paths.NAME).is_dir()]


def create() -> None:
    """Create the root cgroup, without which the kubelet does not start."""
    if is_v2():
        for controller in WANTED_CONTROLLERS:
            # one at a time, because a write with an unknown controller fails as a whole
            with contextlib.suppress(OSError):
                (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        (ROOT / paths.NAME).mkdir(exist_ok=True)
        return
    for hierarchy in hierarchies(Path("/proc/mounts").read_text()):
        folder = hierarchy / paths.NAME
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            # a new cpuset has no CPU and no memory node, and accepts no process without them
            if (folder / name).exists():
                (folder / name).write_text((hierarchy / name).read_text())


def processes(folder: Path) -> set[int]:
    found: set[int] = set()
    for place in _tree(folder):
        with contextlib.suppress(OSError):
            found.update(int(line) for line in (place / "cgroup.procs").read_text().split())
    return found


def _tree(folder: Path) -> list[Path]:
    """The folder and all below it, also while the kubelet removes some of them."""
    return [Path(place) for place, _, _ in os.walk(folder)]


def remove(folder: Path, patience: float = 5.0) -> bool:
    """Remove a tree of empty cgroups, deepest first; returns False if one is still in use."""
    deadline = time.monotonic() + patience
    while folder.exists():
        for path in sorted(_tree(folder)[1:], key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            folder.rmdir()
        if folder.exists() and time.monotonic() > deadline:
            return False
        if folder.exists():
            time.sleep(0.05)
    return True
