"""Runs the measured programs in fresh processes, and returns their values."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.trainer import environments

WARM_UP = 3  # steps
SUBJECT = "bench.trainer.subject"
DEEPSPEED = "bench.trainer.deepspeed_baseline"


@dataclass
class Settings:
    """The extent of the measurements."""

    folder: Path
    rounds: int = 3
    is_quick: bool = False
    print: Callable[[str], None] = print

    def steps(self, count: int) -> int:
        """The number of steps with the warm-up; a quick run measures only a few."""
        return WARM_UP + (3 if self.is_quick else count)


def run(*arguments: object, module: str = SUBJECT) -> dict[str, Any]:
    """The values that a program of this project reports."""
    found = machine.run_fresh(module, *map(str, arguments))
    return {**found.values, "peak_mb": found.peak_mb}


def run_trl(mode: str, head: str, steps: int, folder: Path, batch: int = 8) -> dict[str, Any]:
    """The values that `trl_baseline` reports; see there for the arguments."""
    program = Path(__file__).with_name("trl_baseline.py")
    arguments = (folder, mode, head, steps, 1 if mode == "packing" else batch)
    ran = subprocess.run(
        [str(environments.trl_python()), str(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if ran.returncode:
        sys.exit(f"TRL with {mode} and {head} logits failed:\n{ran.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def tokens_per_second(found: dict[str, Any]) -> float:
    """Real tokens per second after the warm-up."""
    return sum(found["tokens"][WARM_UP - 1 :]) / sum(found["seconds"][WARM_UP - 1 :])


def excess(subject: Sequence[float], baseline: Sequence[float]) -> float:
    """The median over steps of the difference in seconds; both have the same batches."""
    return statistics.median(a - b for a, b in zip(subject, baseline, strict=True))
