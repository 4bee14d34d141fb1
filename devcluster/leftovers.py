"""What an instance leaves on the machine, found by name and removed: after `down`, and after a
power cut before `up`.

The rule of this room: everything here works without any record of what was started, and finds
nothing that isn't ours. It first ends processes (daemons, shims, containers), then frees what they
held.
"""

import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

from devcluster import cgroups, network, paths, processes, sysctls

# Programs of ours that run in the background. People's own kubectl comes from the same folder and
# is not among them.
DAEMONS = frozenset(
    {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
        "kubelet",
        "containerd",
        "containerd-shim-runc-v2",
        "coredns",
        "registry",
        "versitygw",
    }
)
KUBE_PROXY_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))
CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
# Folders outside of ours that the kubelet and containerd make without asking. Only those that were
# not there before are removed, and only when nothing but the kubelet's own droppings is in them.
SHARED_FOLDERS = tuple(
    Path(name)
    for name in (
        "/var/lib/cni/results",
        "/var/lib/cni",
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet",
        "/var/log/containers",
        "/run/containerd/s",
        "/run/containerd/fifo",
        "/run/containerd",
    )
)
MOUNTS = Path("/proc/self/mountinfo")
FOLDER_RECORD = "folders.json"
DROPPINGS = ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION")


class LeftoverError(Exception):
    """Something of a former instance can't be removed."""


def is_own_daemon(executable: str, command: str) -> bool:
    """Whether a process, given its /proc/PID/exe and command line, is a daemon of the cluster.

    Throw-away control planes of tests run the same programs with other folders and must survive.
    """
    program = Path(executable.removesuffix(" (deleted)"))
    is_built_here = paths.NAME in program.parts and program.name in DAEMONS
    return is_built_here and f"{paths.STATE}/" in f"{command}/"


def own_daemons() -> list[processes.Process]:
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            executable = str((folder / "exe").readlink())
            command = (
                (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        if is_own_daemon(executable, command):
            process = processes.identify(Path(executable).name, int(folder.name))
            if process is not None:
                found.append(process)
    return found


def own_mounts(mountinfo: str, folders: list[Path]) -> list[str]:
    """Mount points in or at one of the folders, the last first, from /proc/self/mountinfo."""
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines() if line.strip()]
    ours = [
        point
        for point in points
        if any(Path(point) == folder or folder in Path(point).parents for folder in folders)
    ]
    return ours[::-1]


def own_links(link_json: str) -> list[str]:
    """The bridge and what hangs on it, from `ip -json link show`."""
    links = json.loads(link_json or "[]")
    hanging = [link["ifname"] for link in links if link.get("master") == paths.BRIDGE]
    bridges = [link["ifname"] for link in links if link.get("ifname") == paths.BRIDGE]
    return hanging + bridges


def own_tables(listing: str) -> list[tuple[str, str]]:
    """kube-proxy's nft tables and our own, from `nft list tables`.

    kube-proxy's names are the same in every cluster. They are ours only beside our own table, which
    is made before them and removed after them.
    """
    lines = [line.split() for line in listing.splitlines()]
    tables = [(fields[1], fields[2]) for fields in lines if len(fields) == 3]
    own = ("ip", network.NFT_TABLE)
    return [table for table in [*KUBE_PROXY_TABLES, own] if table in tables and own in tables]


def remove() -> list[str]:
    """Removes whatever is left of an instance, and says what that was; nothing is no error."""
    removed = [*_end_processes(), *_unmount(), *_remove_network(), *_remove_cgroups()]
    for result in CNI_RESULTS.glob(f"{paths.NAME}-*"):
        result.unlink()
    for link in CONTAINER_LOGS.glob("*.log"):
        # The kubelet's links to the logs in our folder, beside those of whoever else writes here.
        if link.is_symlink() and link.readlink().is_relative_to(paths.STATE):
            link.unlink()
    sysctls.restore(paths.STATE / "sysctls.json")
    for folder in _recorded_folders():
        _remove_if_empty(folder)
    if paths.STATE.exists():
        shutil.rmtree(paths.STATE)
        removed.append(f"folder {paths.STATE}")
    return removed


def record_folders() -> None:
    """Remembers, before anything is started, which of the shared folders are not there yet."""
    missing = [str(folder) for folder in SHARED_FOLDERS if not folder.exists()]
    (paths.STATE / FOLDER_RECORD).write_text(json.dumps(missing))


def _recorded_folders() -> list[Path]:
    try:
        recorded = set(json.loads((paths.STATE / FOLDER_RECORD).read_text()))
    except (OSError, ValueError):
        return []
    return [folder for folder in SHARED_FOLDERS if str(folder) in recorded]


def _end_processes() -> list[str]:
    ended = {process.pid: process.name for process in own_daemons()}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = own_daemons()
        for folder in cgroups.own_folders():
            for pid in cgroups.processes(folder):
                process = processes.identify("container", pid)
                if process is not None:
                    alive.append(process)
                    ended.setdefault(pid, "container")
        if not alive:
            break
        for process in alive:
            process.send(signal.SIGKILL)
        time.sleep(0.05)
    return [f"process {pid} ({name})" for pid, name in ended.items()]


def _unmount() -> list[str]:
    folders = [paths.STATE, paths.containerd_root()]
    points = own_mounts(MOUNTS.read_text(), folders)
    for point in points:
        network.run("umount", "--lazy", "--no-canonicalize", point, check=False)
    stuck = own_mounts(MOUNTS.read_text(), folders)
    if stuck:
        # The folders are deleted next, and a mount in them may be somebody's data.
        raise LeftoverError(f"can't unmount {', '.join(stuck)}")
    return [f"mount {point}" for point in points]


def _remove_network() -> list[str]:
    removed = []
    for link in own_links(network.run("ip", "-json", "link", "show", check=False) or ""):
        network.run("ip", "link", "delete", link, check=False)
        removed.append(f"link {link}")
    for family, table in own_tables(network.run("nft", "list", "tables", check=False) or ""):
        network.run("nft", "delete", "table", family, table, check=False)
        removed.append(f"table {family} {table}")
    for rule in network.own_rules(network.filter_rules()):
        network.run("iptables", "-D", *rule, check=False)
        removed.append(f"rule {' '.join(rule)}")
    return removed


def _remove_cgroups() -> list[str]:
    return [f"cgroup {folder}" for folder in cgroups.own_folders() if cgroups.remove(folder)]


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir():
        for name in DROPPINGS:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _unescape(text: str) -> str:
    """mountinfo writes blanks and the like as three octal digits."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
