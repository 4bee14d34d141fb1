"""TRL with packing on the rows of `1b-full`, in a process that imports none of this project.

TRL trains fp32 weights with bf16 autocast, which stores as many bytes per parameter as this
project. It packs rows of 2,048 tokens, eight in a micro-batch. Without a package of FlashAttention
kernels, its attention is torch's `sdpa` with a mask of the examples in a row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.gpu.device import Device
from bench.gpu.models import sizes, write_pod_inputs
from bench.gpu.results import Measurement, Skipped
from bench.gpu.speed import SPEED, TOKENS, WARM_UP

PROGRAM = Path(__file__).parents[1] / "trainer" / "trl_baseline.py"
MODEL = "1B"
STEPS = 8
ROW = 2048  # tokens
ROWS = 8  # of a micro-batch
SECONDS = 600  # the part's own limit is shorter


def measure(device: Device) -> Iterator[Measurement]:
    if problem := missing(device.trl_python):
        if device.is_rehearsal:
            raise Skipped(problem)
        raise RuntimeError(f"{problem}. Carry its wheels, or name an interpreter with --trl.")
    steps = WARM_UP + device.pick(STEPS, 1)
    folder = write_pod_inputs(device, MODEL, sizes(device, None, TOKENS * (steps + 2)))
    found = run(device, folder, steps)
    seconds, tokens = found["seconds"][WARM_UP - 1 :], found["tokens"][WARM_UP - 1 :]
    details = {"versions": found["versions"], "attention": found["attention"]}
    yield Measurement(
        "TRL, packing, mixed lengths", sum(tokens) / sum(seconds), SPEED, details=details
    )
    yield Measurement("TRL, peak of tensors", found["gpu_peak"] / 2**30, "GiB")
    ours = device.results.last("1b-full")
    mine = next((row["value"] for row in ours if row.get("name") == "mixed lengths"), None)
    if mine is not None:
        ratio = mine / (sum(tokens) / sum(seconds))
        yield Measurement("this project / TRL", ratio, "", device.pick(">= 1.1", None))


def missing(python: str) -> str | None:
    """Why TRL cannot run; None: it can."""
    command = [python, "-c", "import trl, datasets, accelerate"]
    found = subprocess.run(
        command, env=environment(python), capture_output=True, text=True, check=False
    )
    if not found.returncode:
        return None
    lines = found.stderr.strip().splitlines() or ["no output"]
    return f"TRL is not installed ({lines[-1]})"


def environment(python: str) -> dict[str, str]:
    """The variables of TRL's process. PYTHONPATH holds packages for this interpreter only."""
    is_own = python == sys.executable
    return {name: value for name, value in os.environ.items() if is_own or name != "PYTHONPATH"}


def run(device: Device, folder: Path, steps: int) -> dict[str, Any]:
    """The last line of the program's output. Raises RuntimeError if it failed."""
    row = device.pick(ROW, 64)
    accumulation = max(1, device.pick(TOKENS, 512) // (ROWS * row))
    command = [device.trl_python, PROGRAM, folder, "packing", "fused", steps, ROWS]
    command += ["--length", row, "--accumulation", accumulation, "--device", device.kind]
    ran = subprocess.run(
        [str(argument) for argument in command],
        env=environment(device.trl_python),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    if ran.returncode:
        raise RuntimeError(f"TRL failed: {ran.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found
