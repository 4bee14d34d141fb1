"""The hardware and the packages of this machine."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_cli.terminal.errors import CommandError

NEEDED = ("torch", "deepspeed", "transformers", "finetune_trainer")
INFERENCE = ("torch", "transformers", "peft", "finetune_trainer")  # what answers a prompt needs


@dataclass(frozen=True)
class Machine:
    """The GPUs and CPUs of this machine. Without GPUs, it trains on the CPU."""

    gpus: int = 0
    memory_gib: float | None = None  # of the smallest GPU
    cpus: int = 1


def find_machine(*, cpu: bool) -> Machine:
    """Ask the NVIDIA driver for the GPUs. cpu: ignore them."""
    from finetune_trainer.launcher.cgroup import available_cpus

    cpus = available_cpus()
    program = shutil.which("nvidia-smi")
    if cpu or program is None:
        return Machine(cpus=cpus)
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        sizes = [float(line) / 1024 for line in result.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CommandError(
            f"nvidia-smi failed: {error}", "repair the NVIDIA driver, or add --cpu"
        ) from error
    return Machine(len(sizes), round(min(sizes), 1) if sizes else None, cpus)


def require_trainer() -> None:
    """Raise CommandError if a package for training is not installed."""
    require_packages(NEEDED, "training on this machine")


def require_packages(packages: Sequence[str], what: str) -> None:
    """Raise CommandError with the extra to install if one of the packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"{what} requires the Python package {missing[0]}",
            "pip install 'finetune-operator[trainer]'",
        )
