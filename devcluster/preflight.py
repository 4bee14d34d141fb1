"""Can this machine run containers? One clear sentence for everything that is missing.

The rule of this room: it looks and never changes; findings are sentences for a person, all of them
at once.
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
IP_FREEBIND = 15  # linux/in.h; the socket module has no name for it

OTHER_WAYS = """Other ways on:
  - kind (https://kind.sigs.k8s.io) or any other cluster: set KUBECONFIG, and all of this uses it;
  - `finetune run`: trains on this machine without Kubernetes."""


class MachineError(Exception):
    """This machine can't run the cluster; the message lists why and the other ways on."""

    def __init__(self, findings: list[str]) -> None:
        lines = [f"  - {finding}" for finding in findings]
        super().__init__("\n".join(["This machine can't run the cluster:", *lines, OTHER_WAYS]))


def check() -> None:
    """Raises MachineError unless this machine can run the cluster."""
    findings = [finding for question in QUESTIONS if (finding := question())]
    if findings:
        raise MachineError(findings)


def check_ports() -> None:
    """Raises MachineError when a port of ours is taken; asked when nothing of ours runs."""
    wanted = [
        (address, port, socket.SOCK_STREAM)
        for port in astuple(paths.PORTS)
        for address in ("127.0.0.1", paths.NODE_ADDRESS)
    ]
    wanted += [(paths.NODE_ADDRESS, 53, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)]
    taken = sorted({port for address, port, kind in wanted if not _is_free(address, port, kind)})
    if taken:
        raise MachineError([f"port {port} is used by another program" for port in taken])


def is_linux() -> str | None:
    system = os.uname().sysname
    return None if system == "Linux" else f"it runs {system}, and containers need Linux"


def is_root() -> str | None:
    return None if os.geteuid() == 0 else "you are not root: run it with sudo"


def has_capabilities() -> str | None:
    if os.geteuid() != 0:
        return None
    missing = missing_capabilities(_read(Path("/proc/self/status")))
    if not missing:
        return None
    return f"root lacks {' and '.join(missing)} here, as in a container that is not privileged"


def missing_capabilities(status: str) -> list[str]:
    """The names of the needed capabilities that aren't effective, from the text of
    /proc/self/status.
    """
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    effective = int(match.group(1), 16) if match else 0
    wanted = {"CAP_SYS_ADMIN": CAP_SYS_ADMIN, "CAP_NET_ADMIN": CAP_NET_ADMIN}
    return [name for name, bit in wanted.items() if not effective >> bit & 1]


def has_overlayfs() -> str | None:
    if re.search(r"\boverlay$", _read(Path("/proc/filesystems")), re.MULTILINE):
        return None
    if network.run("modprobe", "overlay", check=False) is not None:
        return None
    return "the kernel has no overlayfs"


def has_cgroups() -> str | None:
    mounts = [line.split() for line in _read(Path("/proc/mounts")).splitlines()]
    for fields in mounts:
        if len(fields) > 3 and fields[2].startswith("cgroup") and "rw" in fields[3].split(","):
            return None
    return "no cgroup hierarchy is mounted writable under /sys/fs/cgroup"


def has_packages() -> str | None:
    missing = packages.missing_packages()
    if not missing or shutil.which("apt-get"):
        return None
    return f"please install {', '.join(missing)}: there is no apt-get here to do it"


def has_no_other_kubelet() -> str | None:
    own = {process.pid for process in leftovers.own_daemons()}
    here = _network_of(Path("/proc/self"))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) not in own:
            program = _read(folder / "comm").strip()
            # One in a container (kind's) has a network of its own and is in nobody's way.
            if program in ("kubelet", "kube-proxy", "k3s") and _network_of(folder) == here:
                return f"{program} (process {folder.name}) of another cluster runs on it"
    return None


QUESTIONS: tuple[Callable[[], str | None], ...] = (
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
        # The node's address doesn't exist yet; bound freely it still collides with whoever holds
        # the port on all addresses.
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
