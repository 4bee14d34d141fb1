"""What this machine has to train on."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from finetune_cli.terminal.errors import CommandError

NEEDED = ("torch", "deepspeed", "transformers", "finetune_trainer")


@dataclass(frozen=True)
class Machine:
    """GPUs of this machine; none: it trains on the CPU."""

    gpus: int = 0
    memory_gib: float | None = None  # of the smallest
    cpus: int = 1


def find_machine(*, cpu: bool) -> Machine:
    """Asks the NVIDIA driver. cpu: the GPUs are left alone."""
    from finetune_trainer.launcher.cgroup import available_cpus

    cpus = available_cpus()
    program = shutil.which("nvidia-smi")
    if cpu or program is None:
        return Machine(cpus=cpus)
    query = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
        sizes = [float(line) / 1024 for line in asked.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise CommandError(
            f"nvidia-smi is here and fails: {error}", "mend the driver, or give --cpu"
        ) from error
    return Machine(len(sizes), round(min(sizes), 1) if sizes else None, cpus)


def require_trainer() -> None:
    """Raise CommandError where what trains is not installed."""
    require(NEEDED, "training on this machine")


def require(packages: Sequence[str], what: str) -> None:
    """Raise CommandError, naming the extra to install, where one of the packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise CommandError(
            f"{what} needs the Python package {missing[0]}",
            "pip install 'finetune-operator[trainer]'",
        )
