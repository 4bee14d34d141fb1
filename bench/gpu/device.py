"""The device of a part: the GPU, or the CPU in a rehearsal."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.gpu.results import Results

REHEARSAL = "CPU (rehearsal)"
LAUNCH_SEGMENTS = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}  # as the launcher sets it

T = TypeVar("T")


@dataclass(frozen=True)
class Device:
    """What a part may use. folder: for its files, on a disk with room for two 8B models."""

    card: str
    is_rehearsal: bool
    folder: Path
    results: Results
    trl_python: str  # the interpreter that has TRL

    @property
    def kind(self) -> Literal["cpu", "cuda"]:
        return "cpu" if self.is_rehearsal else "cuda"

    @property
    def accelerator(self) -> Literal["cpu", "nvidia"]:
        return "cpu" if self.is_rehearsal else "nvidia"

    def pick(self, real: T, tiny: T) -> T:
        """The real value, or that of a rehearsal."""
        return tiny if self.is_rehearsal else real

    def synchronize(self) -> None:
        """Wait for the kernels."""
        if not self.is_rehearsal:
            import torch

            torch.cuda.synchronize()

    def free(self) -> None:
        """Return unused memory to the system."""
        import gc

        gc.collect()
        if not self.is_rehearsal:
            import torch

            torch.cuda.empty_cache()


def find_card(*, is_rehearsal: bool) -> str:
    """The name of the GPU. Raises RuntimeError if there is none."""
    if is_rehearsal:
        return REHEARSAL
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError(
            "this machine has no GPU that torch can use. "
            "Add --rehearse to run all parts with tiny shapes on the CPU."
        )
    return str(torch.cuda.get_device_name())


def environment(*, is_rehearsal: bool) -> dict[str, str]:
    """The variables of a part's process, as the trainer's launcher sets them for a rank."""
    fixed = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if is_rehearsal:
        return {**fixed, "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**LAUNCH_SEGMENTS, **fixed}


class Memory:
    """Bytes of tensors on the GPU; in a rehearsal those of the whole process."""

    def __init__(self, device: Device) -> None:
        self._is_rehearsal = device.is_rehearsal

    def reset(self) -> None:
        """Start a phase with its own peak."""
        if self._is_rehearsal:
            with contextlib.suppress(OSError):  # not on every kernel
                Path("/proc/self/clear_refs").write_text("5")
            return
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()

    @property
    def allocated(self) -> float:
        if self._is_rehearsal:
            return resident_bytes(os.getpid(), "VmRSS")
        import torch

        return float(torch.cuda.memory_allocated())

    @property
    def peak(self) -> float:
        if self._is_rehearsal:
            return resident_bytes(os.getpid(), "VmHWM")
        import torch

        return float(torch.cuda.max_memory_allocated())

    @property
    def reserved(self) -> float:
        """The peak of what torch took from the driver."""
        if self._is_rehearsal:
            return self.peak
        import torch

        return float(torch.cuda.max_memory_reserved())


def resident_bytes(pid: int, field: Literal["VmRSS", "VmHWM"]) -> float:
    """The resident memory of a process, or its peak; 0 if the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    found = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024.0 * int(next(found, "0"))


class KernelCalls:
    """Counts the calls of torch's variable-length attention, which only runs on a GPU."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def watch(self) -> Iterator[KernelCalls]:
        from finetune_trainer.engine import attention

        original = attention.kernel
        attend = original().attend

        def counted(*arguments: Any, **named: Any) -> Any:
            self.count += 1
            return attend(*arguments, **named)

        attention.kernel = lambda: original()._replace(attend=counted)
        try:
            yield self
        finally:
            attention.kernel = original

    def describe(self) -> str:
        return f"varlen_attn, {self.count} calls" if self.count else "one example at a time"
