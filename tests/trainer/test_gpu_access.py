"""Whether a rank can use its GPU, and the words when it cannot."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finetune_api.drivers import (
    IMAGE_CUDA,
    MINIMUM_DRIVERS,
    is_too_old,
    minimum_driver,
    parse_driver,
)
from finetune_api.errors import FailureError
from finetune_api.names import END_REASONS, USER_REASONS, Reason
from finetune_trainer.hardware import gpu_access
from finetune_trainer.hardware.gpu_access import (
    GpuAccess,
    find_problem,
    has_kernels,
    observe_access,
    read_driver,
    require_gpu,
)

CU130 = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")  # torch 2.13
OLD = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU"
NONE = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC "
            "2023\nGCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  "
            "(abuild@host)  Thu Jul 11 12:00:00 UTC 2024\nGCC version:  gcc version 7.5.0\n",
            "580.65.06",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.120  Fri Sep 13\n", "550.120"),
        ("GCC version:  gcc version 535.104.05\n", None),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  latest\n", None),
        ("NVRM version: " + "9" * 5000 + ".1\n", None),
        ("\0\xff not text", None),
        ("", None),
    ],
)
def test_the_driver_is_read_from_the_kernels_report(
    tmp_path: Path, text: str, version: str | None
) -> None:
    path = tmp_path / "version"
    path.write_bytes(text.encode("latin-1"))
    assert read_driver(path) == version


def test_a_missing_report_is_an_unknown_driver(tmp_path: Path) -> None:
    assert read_driver(tmp_path / "version") is None
    assert read_driver(tmp_path) is None


def test_the_minimum_driver_follows_the_major_version_of_cuda() -> None:
    assert minimum_driver("13.0") == minimum_driver(13) == MINIMUM_DRIVERS[13] == "580"
    assert minimum_driver("12.8") == "525.60.13"
    for unknown in (None, "", "14.1", "x.0", "9" * 50, "-13"):
        assert minimum_driver(unknown) is None


def test_the_image_has_the_cuda_for_which_the_documented_driver_counts() -> None:
    """IMAGE_CUDA stands for the pinned torch where torch is not installed."""
    assert str(torch.version.cuda).split(".")[0] == str(IMAGE_CUDA)


@pytest.mark.parametrize(
    ("driver", "minimum", "expected"),
    [
        ("575.57.08", "580", True),
        ("580.65.06", "580", False),
        ("580", "580", False),
        ("1000.1", "580", False),
        ("525.60.11", "525.60.13", True),
        ("525.105.17", "525.60.13", False),
        ("525", "525.60.13", False),  # only the major version is known
        ("535", "580", True),
        (None, "580", False),
        ("latest", "580", False),
        ("535.1", None, False),
    ],
)
def test_an_unknown_version_is_never_too_old(
    driver: str | None, minimum: str | None, expected: bool
) -> None:
    assert is_too_old(driver, minimum) is expected
    assert parse_driver("570.86.15") == (570, 86, 15)


def test_a_gpu_that_works_is_no_problem_whatever_the_driver() -> None:
    """Libraries of a forward compatibility package serve a newer CUDA with an older driver."""
    assert (
        find_problem(
            GpuAccess(
                *(0, "13.0", "535.104.05"),
                gpus=1,
                name="NVIDIA H100",
                capability=(9, 0),
                kernels=CU130,
            )
        )
        is None
    )


@pytest.mark.parametrize(
    ("access", "code", "words"),
    [
        (
            GpuAccess(0, "13.0", "535.104.05", error=OLD),
            Reason.DRIVER_TOO_OLD,
            "driver of the node (535.104.05) is too old for PyTorch with CUDA 13.0, which requires "
            "580 or later",
        ),
        (
            GpuAccess(0, "13.0", "575.57.08", error="CUDA error: unknown error"),
            Reason.DRIVER_TOO_OLD,
            "(575.57.08)",
        ),
        (
            GpuAccess(0, "13.0", None, error=OLD),
            Reason.DRIVER_TOO_OLD,
            "driver of the node (for CUDA 12.2) is too old",
        ),
        (
            GpuAccess(0, "14.0", "580.65.06", error=OLD),
            Reason.DRIVER_TOO_OLD,
            "(580.65.06, for CUDA 12.2) is too old for PyTorch with CUDA 14.0, which requires a "
            "newer version",
        ),
        (
            GpuAccess(0, "13.0", "580.65.06", error="No CUDA GPUs are available"),
            Reason.GPU_UNUSABLE,
            "the node has NVIDIA driver 580.65.06, but the container cannot use a GPU: No CUDA",
        ),
        (
            GpuAccess(0, "13.0", None, error=NONE),
            Reason.GPU_UNUSABLE,
            "neither a GPU nor an NVIDIA driver: Found no NVIDIA driver",
        ),
        (
            GpuAccess(3, "13.0", "580.65.06", gpus=2, error="CUDA error: invalid device ordinal"),
            Reason.GPU_UNUSABLE,
            "sees only 2 GPUs, but at least 4 processes",
        ),
        (
            GpuAccess(1, "13.0", "580.65.06", gpus=2, error="CUDA error: out of memory"),
            Reason.GPU_UNUSABLE,
            "GPU 1 of the container cannot be used: CUDA error: out of memory",
        ),
        (
            GpuAccess(0, None, "580.65.06", error="Torch not compiled with CUDA enabled"),
            Reason.GPU_UNUSABLE,
            "PyTorch in the runtime's image is built without CUDA",
        ),
        (
            GpuAccess(
                *(0, "13.0", "580.65.06"),
                gpus=8,
                name="Tesla V100-SXM2-32GB",
                capability=(7, 0),
                kernels=CU130,
            ),
            Reason.GPU_UNUSABLE,
            "the GPU (Tesla V100-SXM2-32GB, compute capability 7.0) is not supported by PyTorch in "
            "the runtime's image, which has kernels for sm_75, sm_80",
        ),
    ],
)
def test_each_cause_has_its_own_words_and_a_hint(access: GpuAccess, code: str, words: str) -> None:
    failure = find_problem(access)
    assert failure is not None
    assert (failure.code, words in failure.message) == (code, True), failure.message
    assert failure.hint and len(failure.message) < 1000
    assert code in END_REASONS - USER_REASONS  # another node may be all right


@pytest.mark.parametrize(
    ("capability", "kernels", "expected"),
    [
        ((8, 9), CU130, True),  # L4, with the binary of 8.6
        ((10, 3), CU130, True),  # B300, with the binary of 10.0
        ((12, 1), CU130, True),
        ((7, 0), CU130, False),
        ((6, 1), CU130, False),
        ((13, 0), CU130, True),  # a later GPU compiles the PTX
        ((13, 0), CU130[:-1], False),
        ((8, 0), ("sm_86",), False),  # a binary of a later minor version
        ((9, 0), ("sm_90a",), True),
        ((10, 0), ("sm_90a", "compute_90a"), False),
        ((10, 3), ("sm_100f",), True),
        ((9, 0), (), True),  # unknown
        ((9, 0), ("gfx942",), True),
        (None, CU130, True),
    ],
)
def test_kernels_of_the_same_generation_or_older_ptx_run(
    capability: tuple[int, int] | None, kernels: tuple[str, ...], expected: bool
) -> None:
    assert has_kernels(capability, kernels) is expected


def test_the_installed_torch_supports_current_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    # without a GPU, torch.cuda.get_arch_list() is empty, and this reads the list in the library
    flags = torch._C._cuda_getArchFlags()
    kernels = tuple(flags.split())
    for capability in [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]:
        assert has_kernels(capability, kernels), flags
    assert not has_kernels((7, 0), kernels)


def test_cudas_own_error_is_in_the_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def set_device(number: int) -> None:
        assert number == 3
        raise RuntimeError(f"\n{OLD} driver by downloading\nand installing a new version")

    cuda: Any = SimpleNamespace(
        set_device=set_device, is_available=lambda: False, device_count=lambda: 8
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n")
    found = observe_access(3, path)
    assert found == GpuAccess(3, torch.version.cuda, "535.104.05", error=found.error)
    assert found.error == f"{OLD} driver by downloading"


def test_a_rank_ends_before_it_imports_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gpu_access, "observe_access", lambda rank: GpuAccess(rank, "13.0", "470.82.01", error=OLD)
    )
    with pytest.raises(FailureError) as caught:
        require_gpu(5)
    assert caught.value.failure.code == Reason.DRIVER_TOO_OLD
