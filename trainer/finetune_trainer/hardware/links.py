"""The links of a node: NVLink between its GPUs, RDMA devices, and network interfaces."""

import contextlib
import ctypes
import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RDMA_CLASS = Path("/sys/class/infiniband")  # also RoCE and EFA devices
RDMA_DEVICES = Path("/dev/infiniband")  # in the container only if the pod may use the devices
NET_CLASS = Path("/sys/class/net")

MOST_DEVICES = 256  # more entries of a folder are not read
MOST_NVLINKS = 36  # of one GPU, today at most 18
_RATE = re.compile(r"(\d+(?:\.\d+)?) Gb/sec")
_NAME = re.compile(r"[\w.:-]{1,32}")


@dataclass(frozen=True)
class RdmaPort:
    """An active port of an RDMA device, as the kernel reports it."""

    device: str  # mlx5_0
    kind: str  # InfiniBand, or Ethernet for RoCE and EFA
    gigabits: float  # per second; 0: unknown


@dataclass(frozen=True)
class Links:
    """The links that this container sees."""

    nvlinks: int | None = None  # active, of the first GPU; None: unknown
    rdma: tuple[RdmaPort, ...] = ()
    is_rdma_usable: bool = False  # whether the container has the device files
    locked_bytes: int | None = None  # the limit of memory for RDMA; None: unlimited
    interfaces: tuple[str, ...] = ()  # for sockets: eth0


def observe_links() -> Links:
    return Links(
        nvlinks=active_nvlinks(),
        rdma=active_ports(),
        is_rdma_usable=is_rdma_usable(),
        locked_bytes=locked_limit(),
        interfaces=interfaces(),
    )


def active_ports(folder: Path = RDMA_CLASS) -> tuple[RdmaPort, ...]:
    """The active ports of all RDMA devices, by their names."""
    found = []
    for device in _entries(folder):
        for port in _entries(device / "ports"):
            if not _read(port / "state").endswith("ACTIVE"):
                continue
            rate = _RATE.match(_read(port / "rate"))
            kind = _read(port / "link_layer")
            kind = kind if kind in {"InfiniBand", "Ethernet"} else "RDMA"
            found.append(RdmaPort(device.name, kind, float(rate[1]) if rate else 0.0))
    return tuple(found)


def is_rdma_usable(folder: Path = RDMA_DEVICES) -> bool:
    """Whether the pod got the device files, from a device plugin or as a privileged pod."""
    return any(path.name.startswith("uverbs") for path in _entries(folder))


def locked_limit() -> int | None:
    """The most memory in bytes that a process may lock, which RDMA does; None: no limit."""
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def interfaces(folder: Path = NET_CLASS) -> tuple[str, ...]:
    """The network interfaces that are up, without the loopback."""
    return tuple(
        path.name
        for path in _entries(folder)
        if path.name != "lo" and _read(path / "operstate") in {"up", "unknown"}
    )


def load_nvml() -> Any:
    """NVIDIA's management library, which the container toolkit mounts with the driver."""
    return ctypes.CDLL("libnvidia-ml.so.1")


def active_nvlinks(load: Callable[[], Any] = load_nvml) -> int | None:
    """The active NVLinks of the first GPU; None: unknown."""
    try:
        nvml = load()
        if nvml.nvmlInit_v2() != 0:
            return None
        try:
            gpu = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(gpu)) != 0:
                return None
            return sum(_is_active(nvml, gpu, link) for link in range(MOST_NVLINKS))
        finally:
            nvml.nvmlShutdown()
    except (OSError, AttributeError):  # no library, or a version without these functions
        return None


def _is_active(nvml: Any, gpu: ctypes.c_void_p, link: int) -> bool:
    """False also for a link that the GPU does not have."""
    state = ctypes.c_uint(0)
    return nvml.nvmlDeviceGetNvLinkState(gpu, link, ctypes.byref(state)) == 0 and state.value == 1


def _entries(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: path.name)[:MOST_DEVICES]
    return []


def _read(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(200).decode(errors="replace").strip()
    return ""
