"""Shared by all benchmarks: an idle machine, new processes, and medians with their spread."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET_LOAD = 0.7
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"


def refuse_when_loaded(*, is_forced: bool) -> None:
    """Exit if the machine is busy, because the result would include its other work."""
    load = os.getloadavg()[0]
    if load > QUIET_LOAD and not is_forced:
        sys.exit(
            f"the load is {load:.2f}, the limit is {QUIET_LOAD}. "
            "Wait, or add --force for a rough result."
        )


@dataclass(frozen=True)
class Measured:
    """The values that one process reported, and its peak memory."""

    values: dict[str, Any]
    peak_mb: float  # 10^6 bytes


def run_fresh(module: str, *arguments: str) -> Measured:
    """Run `python -m module arguments` in a new process; its last line is a JSON value."""
    ran = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if ran.returncode:
        sys.exit(f"{module} {' '.join(arguments)} failed:\n{ran.stderr[-2000:]}")
    values = json.loads(ran.stdout.splitlines()[-1])
    return Measured(values, values.pop("peak_mb"))


def python_path() -> str:
    """The import path of a process that runs the packages of this checkout."""
    folders = sorted(package.parent for package in ROOT.glob("*/finetune_*"))
    return os.pathsep.join(str(folder) for folder in [*folders, ROOT])


def report(**values: Any) -> None:
    """Print the last line of a measured process: its values and its peak memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kibibytes = int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    print(json.dumps({**values, "peak_mb": kibibytes * 1024 / 1e6}))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Return the median and the range, for example `2.41 (2.38 to 2.47)`."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def save(name: str, value: dict[str, Any]) -> Path:
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(value, indent=2) + "\n")
    return path
