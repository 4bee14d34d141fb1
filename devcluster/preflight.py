"""Checks that this machine can run containers; each missing requirement is one sentence.

The checks change nothing, and the user sees all findings at once.
"""

import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

from devcluster import leftovers, network, packages, paths

CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
IP_FREEBIND = 15  # from linux/in.h; the socket module does not define it

ALTERNATIVES = """Alternatives:
  - Use kind (https://kind.sigs.k8s.io) or any other cluster: set KUBECONFIG to its kubeconfig.
  - Train on this machine without Kubernetes: use `finetune run`."""


class MachineError(Exception):
    """This machine cannot run the cluster; the message lists the causes and alternatives."""

    def __init__(self, findings: list[str]) -> None:
        lines = [f"  - {finding}" for finding in findings]
        super().__init__("\n".join(["This machine cannot run the cluster:", *lines, ALTERNATIVES]))


def check() -> None:
    """Raises MachineError unless this machine can run the cluster."""
    findings = [finding for find in CHECKS if (finding := find())]
    if findings:
        raise MachineError(findings)


def check_ports() -> None:
    """Raises MachineError if a port of the cluster is in use; call it while the cluster is down."""
    wanted = [
        (address, port, socket.SOCK_STREAM)
        for port in astuple(paths.PORTS)
        for address in ("127.0.0.1", paths.NODE_ADDRESS)
    ]
    wanted += [(paths.NODE_ADDRESS, 53, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    taken = sorted({port for address, port, kind in wanted if not _is_free(address, port, kind)})
    if taken:
        raise MachineError([f"Another program uses port {port}." for port in taken])


def is_linux() -> str | None:
    system = os.uname().sysname
    return None if system == "Linux" else f"The system is {system}, and containers need Linux."


def is_root() -> str | None:
    return None if os.geteuid() == 0 else "You are not root. Run the command with sudo."


def has_capabilities() -> str | None:
    if os.geteuid() != 0:
        return None
    missing = missing_capabilities(_read(Path("/proc/self/status")))
    if not missing:
        return None
    return f"root lacks {' and '.join(missing)}, as in an unprivileged container."


def missing_capabilities(status: str) -> list[str]:
    """The required capabilities that are not effective, from the text of /proc/self/status."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(match.group(1), 16) if match else 0
    wanted = {"CAP_SYS_ADMIN": CAP_SYS_ADMIN, "CAP_NET_ADMIN": CAP_NET_ADMIN}
    return [name for name, bit in wanted.items() if not effective >> bit & 1]


def has_overlayfs() -> str | None:
    if re.search(r"\boverlay$", _read(Path("/proc/filesystems")), re.MULTILINE):
        return None
    if network.run("modprobe", "overlay", check=False) is not None:
        return None
    return "The kernel has no overlayfs."


def has_cgroups() -> str | None:
    mounts = [line.split() for line in _read(Path("/proc/mounts")).splitlines()]
    for fields in mounts:
        if len(fields) > 3 and fields[2].startswith("cgroup") and "rw" in fields[3].split(","):
            return None
    return "No cgroup hierarchy under /sys/fs/cgroup is writable."


def has_packages() -> str | None:
    missing = packages.missing_packages()
    if not missing or shutil.which("apt-get"):
        return None
    return f"{', '.join(missing)} are missing, and there is no apt-get. Install them."


def has_no_other_kubelet() -> str | None:
    own = {process.pid for process in leftovers.own_daemons()}
    here = _network_of(Path("/proc/self"))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) not in own:
            program = _read(folder / "comm").strip()
            # A kubelet in a container (kind) has its own network and does not conflict.
            if program in ("kubelet", "kube-proxy", "k3s") and _network_of(folder) == here:
                return f"{program} (process {folder.name}) of another cluster is running."
    return None


CHECKS: tuple[Callable[[], str | None], ...] = (
    is_linux,
    is_root,
    has_capabilities,
    has_overlayfs,
    has_cgroups,
    has_packages,
    has_no_other_kubelet,
)


def _is_free(address: str, port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as attempt:
        # The address of the node does not exist yet. With IP_FREEBIND, the bind still fails if
        # another program has the port on all addresses.
        attempt.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if kind == socket.SOCK_STREAM:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
            if kind == socket.SOCK_STREAM:
                attempt.listen()
        except OSError:
            return False
    return True


def _network_of(process: Path) -> str:
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
