"""The process of one part, or of several of a rehearsal: `python -m bench.gpu.part NAME...`

Every measurement is in the results file as soon as it is known.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from bench.gpu.device import Device
from bench.gpu.parts import NAMES, Part, find
from bench.gpu.results import Measurement, Origin, Results, Skipped, Status
from bench.gpu.table import shown

MESSAGE = 400  # characters of an error


def run(part: Part, device: Device) -> bool:
    """Run a part and record its end. Returns whether it passed or does not apply here."""
    results, attempt = device.results, device.results.next_attempt(part.name)
    begin = time.monotonic()
    missed: list[str] = []
    status: Status
    print(f"{part.name}: {part.title}", flush=True)
    try:
        module = importlib.import_module(f"bench.gpu.{part.module}")
        for measurement in module.measure(device, **part.options):
            results.add(part.name, attempt, measurement)
            print(f"  {line_of(measurement)}", flush=True)
            if not measurement.is_met:
                missed.append(f"{measurement.name}: {measurement.value:.4g}")
        status, message = ("missed", "; ".join(missed)) if missed else ("passed", "")
    except Skipped as reason:
        status, message = "skipped", str(reason)
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        status, message = "failed", f"{type(error).__name__}: {first}"
    results.finish(part.name, attempt, status, time.monotonic() - begin, message[:MESSAGE])
    print(f"  {status} {message[:MESSAGE]}", flush=True)
    return status in {"passed", "skipped"}


def line_of(measurement: Measurement) -> str:
    verdict = "" if measurement.target is None else f"  ({measurement.target})"
    return f"{measurement.name}: {shown(measurement.value, measurement.unit)}{verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=NAMES)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="for large temporary files")
    parser.add_argument("--card", required=True)
    parser.add_argument("--torch", required=True)
    parser.add_argument("--trl", required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    results = Results(options.output, Origin(options.card, options.torch))
    are_good = []
    for name in options.names:
        with tempfile.TemporaryDirectory(prefix="bench-gpu-", dir=options.folder) as folder:
            device = Device(
                card=options.card,
                is_rehearsal=options.rehearse,
                folder=Path(folder),
                results=results,
                trl_python=options.trl,
            )
            are_good.append(run(find(name), device))
            device.free()
    return 0 if all(are_good) else 1


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a regular exit may wait for threads of NCCL or gloo
