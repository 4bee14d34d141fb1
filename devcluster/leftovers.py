"""Removes everything that an instance leaves on the machine: in `down`, and in `up` after a crash.

It works without a record of the started processes and finds only objects of this cluster. It first
ends processes (daemons, shims, containers), and then removes the objects that they held.
"""

import contextlib
import json
import shutil
import signal
import time
from pathlib import Path

from devcluster import cgroups, network, paths, processes, sysctls

# The programs that run in the background. kubectl is in the same folder, but is not one of them.
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
# Folders outside the state folder that the kubelet and containerd create. They are removed only if
# they did not exist before and contain nothing except files of the kubelet.
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
KUBELET_FILES = ("kubelet.sock", "kubelet_internal_checkpoint", "DEPRECATION")


class LeftoverError(Exception):
    """A part of an earlier instance cannot be removed."""


def is_own_daemon(executable: str, command: str) -> bool:
    """Whether a process is a daemon of the cluster, by its /proc/PID/exe and command line.

    The control planes of tests run the same programs with other folders and must survive.
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
    """The mount points at or below the folders, last first, from /proc/self/mountinfo."""
    points = [_unescape(line.split()[4]) for line in mountinfo.splitlines() if line.strip()]
    ours = [
        point
        for point in points
        if any(Path(point) == folder or folder in Path(point).parents for folder in folders)
    ]
    return ours[::-1]


def own_links(link_json: str) -> list[str]:
    """The bridge and its ports, from `ip -json link show`."""
    links = json.loads(link_json or "[]")
    ports = [link["ifname"] for link in links if link.get("master") == paths.BRIDGE]
    bridges = [link["ifname"] for link in links if link.get("ifname") == paths.BRIDGE]
    return ports + bridges


def own_tables(listing: str) -> list[tuple[str, str]]:
    """The nft tables of this cluster and of its kube-proxy, from `nft list tables`.

    The names of the kube-proxy tables are the same in every cluster. They belong to this cluster
    only if its own table exists, which is created before them and removed after them.
    """
    lines = [line.split() for line in listing.splitlines()]
    tables = [(fields[1], fields[2]) for fields in lines if len(fields) == 3]
    own = ("ip", network.NFT_TABLE)
    return [table for table in [*KUBE_PROXY_TABLES, own] if table in tables and own in tables]


def remove() -> list[str]:
    """Remove the remains of an instance and return their descriptions."""
    removed = [*_end_processes(), *_unmount(), *_remove_network(), *_remove_cgroups()]
    for result in CNI_RESULTS.glob(f"{paths.NAME}-*"):
        result.unlink()
    for link in CONTAINER_LOGS.glob("*.log"):
        # links of the kubelet to logs in the state folder; other programs have links here, too
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
    """Record the shared folders that do not exist before the start."""
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
        # The folders are deleted next, and a mount in them can contain user data.
        raise LeftoverError(f"Cannot unmount {', '.join(stuck)}.")
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
        for name in KUBELET_FILES:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _unescape(text: str) -> str:
    """Decode the octal escapes of mountinfo, for example for spaces."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts[1:])
