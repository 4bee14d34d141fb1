"""Whether this rank can use its GPU, and the cause if it cannot.

CUDA itself decides: a driver that is older than NVIDIA's table demands may still work with the
libraries of a forward compatibility package. The version of the driver only explains a failure.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.drivers import is_too_old, minimum_driver
from finetune_api.errors import FailureError
from finetune_api.outcome import Failure
from finetune_trainer import failures

# The kernel driver's own report. It is that of the node, also in a container without a GPU.
DRIVER_FILE = Path("/proc/driver/nvidia/version")
FILE_BYTES = 4096

_DRIVER_LINE = re.compile(
    r"^NVRM version:.*?\s(\d{3}\.\d{1,4}(?:\.\d{1,4})?)(?:\s|$)", re.MULTILINE
)
_OLD_DRIVER = re.compile(r"driver on your system is too old \(found version (\d{4,6})\)")
_KERNELS = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


@dataclass(frozen=True)
class GpuAccess:
    """What CUDA and the kernel report to one rank."""

    local_rank: int
    cuda: str | None = None  # "13.0", for which PyTorch was built; None: for CPUs only
    driver: str | None = None  # "570.86.15", of the node; None: unknown
    gpus: int = 0  # visible to this process
    error: str = ""  # why CUDA cannot use the GPU of this rank; empty: it can
    name: str = ""  # of the GPU of this rank
    capability: tuple[int, int] | None = None  # of the GPU of this rank; (9, 0): Hopper
    kernels: tuple[str, ...] = ()  # ("sm_80", "sm_90", "compute_90"), in PyTorch


def require_gpu(local_rank: int) -> None:
    """Raise FailureError if this rank cannot use its GPU. Selects the GPU."""
    if (failure := find_problem(observe_access(local_rank))) is not None:
        raise FailureError(failure)


def read_driver(path: Path = DRIVER_FILE) -> str | None:
    """The version of the node's driver; None if the file is missing or has another format."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES).decode(errors="replace")
    except OSError:
        return None
    found = _DRIVER_LINE.search(text)
    return found[1] if found else None


def observe_access(local_rank: int, driver_file: Path = DRIVER_FILE) -> GpuAccess:
    """Select the GPU of this rank, as `connect` does again later, and read its properties."""
    import torch

    seen: dict[str, Any] = {"cuda": torch.version.cuda, "driver": read_driver(driver_file)}
    try:
        torch.cuda.set_device(local_rank)
        name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    except (RuntimeError, AssertionError) as error:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return GpuAccess(local_rank, gpus=gpus, error=_first_line(error), **seen)
    return GpuAccess(
        local_rank,
        gpus=torch.cuda.device_count(),
        name=name,
        capability=capability,
        kernels=tuple(torch.cuda.get_arch_list()),
        **seen,
    )


def find_problem(access: GpuAccess) -> Failure | None:
    """The failure of a rank that cannot use its GPU; None: it can."""
    if not access.error:
        if has_kernels(access.capability, access.kernels):
            return None
        return failures.unsupported_gpu(access.name, access.capability, access.kernels)
    minimum = minimum_driver(access.cuda)
    if access.cuda is None:
        return failures.torch_without_cuda()
    if not access.gpus and is_too_old(access.driver, minimum):
        return failures.driver_too_old(f"{access.driver}", access.cuda, minimum or "")
    if (found := _OLD_DRIVER.search(access.error)) is not None:
        version = int(found[1])
        supported = f"for CUDA {version // 1000}.{version % 1000 // 10}"
        driver = f"{access.driver}, {supported}" if access.driver else supported
        return failures.driver_too_old(driver, access.cuda, minimum or "a newer version")
    if 0 < access.gpus <= access.local_rank:
        return failures.too_few_gpus(access.gpus, access.local_rank + 1)
    if access.gpus:
        return failures.gpu_failed(access.local_rank, access.error)
    if access.driver is None:
        return failures.no_driver(access.error)
    return failures.no_gpu_in_container(access.driver, access.error)


def has_kernels(capability: tuple[int, int] | None, kernels: tuple[str, ...]) -> bool:
    """Whether a GPU can run PyTorch's kernels: binaries of its generation, or any older PTX.

    Binaries run on the same and on later minor versions of a generation, those with the suffix "a"
    only on their own (CUDA C++ Programming Guide, "Compute Capabilities"). True if unknown.
    """
    found = [_KERNELS.fullmatch(kernel) for kernel in kernels]
    if capability is None or not found or None in found:
        return True
    for kernel in filter(None, found):
        built = (int(kernel[2]), int(kernel[3]))
        if kernel[4] == "a":
            is_usable = capability == built
        elif kernel[1] == "compute" and not kernel[4]:
            is_usable = capability >= built
        else:
            is_usable = capability[0] == built[0] and capability >= built
        if is_usable:
            return True
    return False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__
