"""`python -m bench.gpu`: check and measure the trainer on one GPU, part by part."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import requirements, table
from bench.gpu.device import environment
from bench.gpu.parts import NAMES, PARTS, Part, find
from bench.gpu.results import Origin, Results
from bench.machine import RESULTS, python_path

MINUTES = 8
MARK = "BENCH_GPU_PART"  # a variable that all processes of a part inherit
LEAST_SECONDS = 20  # no part starts with less time
EPILOG = """\
Parts, the most valuable first, with the time limit of each:

{parts}

Each part is a process of its own, and its figures are in the results file as soon as they are
known: a crash or a time limit costs one part. Start with `python -m bench.gpu`, and run what failed
or did not start with `python -m bench.gpu --resume --minutes 4`. `roofline` needs no GPU. On a GPU,
a part fails if training does not use the packed path with FlashAttention's variable-length kernel.

The exit status is 0 if all parts passed, 1 if one did not, and 2 if the machine lacks a package or
a GPU. `python -m bench.gpu.wheels` collects packages for a machine without a network.
"""


def main() -> int:
    options = parse()
    try:
        machine = requirements.observe(import_path(), is_rehearsal=options.rehearse)
    except RuntimeError as error:
        return refuse(str(error))
    if machine["missing"]:
        return refuse("this machine lacks packages:\n  " + " ".join(machine["missing"]))
    versions = machine["versions"]
    results = Results(options.output, Origin(machine["card"], versions["torch"]))
    print(", ".join([machine["card"], *(f"{name} {number}" for name, number in versions.items())]))
    names = options.only or list(NAMES)
    if options.resume:
        names = results.pending(names)
    parts = [find(name) for name in NAMES if name in names]
    deadline = time.monotonic() + 60 * options.minutes
    for group in processes(parts, is_rehearsal=options.rehearse):
        left = deadline - time.monotonic()
        if left < LEAST_SECONDS:
            rest = " ".join(part.name for part in parts if results.end(part.name) is None)
            print(f"no time is left for: {rest}. Run them with --resume.")
            break
        run(group, results, options, seconds=min(left, sum(part.seconds for part in group)))
    chosen = [find(name) for name in options.only or NAMES]
    print("\n" + "\n".join(table.lines(results, chosen)))
    print(f"\nwrote {options.output}")
    failed = [
        part.name
        for part in chosen
        if (end := results.end(part.name)) is None or end["status"] not in {"passed", "skipped"}
    ]
    if failed:
        print(f"did not pass: {' '.join(failed)}")
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    listed = "\n".join(f"  {p.name:<16} {p.seconds:>4} s  {p.title}" for p in PARTS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description="Check and measure the trainer on one GPU.",
        epilog=EPILOG.format(parts=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", choices=NAMES, action="append", help="run this part only (repeatable)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="run only the parts that failed or have not run"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=MINUTES,
        help=f"stop all parts after this time (default: {MINUTES})",
    )
    parser.add_argument(
        "--output", type=Path, help="append to this file (default: bench/results/gpu.json)"
    )
    parser.add_argument(
        "--folder", type=Path, help="put large temporary files here (default: the system's choice)"
    )
    parser.add_argument(
        "--trl",
        metavar="PYTHON",
        default=sys.executable,
        help="the interpreter that has TRL (default: this one)",
    )
    parser.add_argument(
        "--rehearse",
        action="store_true",
        help="run every part with tiny shapes on the CPU, which measures nothing",
    )
    options = parser.parse_args()
    if options.output is None:
        folder = Path(tempfile.mkdtemp(prefix="bench-gpu-")) if options.rehearse else RESULTS
        options.output = folder / "gpu.json"
    return options


def refuse(reason: str) -> int:
    print(f"bench.gpu: {reason}", file=sys.stderr)
    return 2


def processes(parts: Sequence[Part], *, is_rehearsal: bool) -> list[list[Part]]:
    """The parts of each process: one, except in a rehearsal, which imports the libraries once."""
    if is_rehearsal:
        return [list(parts)] if parts else []
    return [[part] for part in parts]


def run(
    parts: Sequence[Part], results: Results, options: argparse.Namespace, *, seconds: float
) -> None:
    """Run parts in one process, and record the end of those that could not do so themselves."""
    attempts = {part.name: results.next_attempt(part.name) for part in parts}
    command = [sys.executable, "-m", "bench.gpu.part", *attempts]
    command += ["--output", str(options.output), "--trl", options.trl]
    command += ["--card", results.origin.card, "--torch", results.origin.torch]
    if options.folder:
        command += ["--folder", str(options.folder)]
    if options.rehearse:
        command += ["--rehearse"]
    mark = uuid.uuid4().hex
    begin = time.monotonic()
    process = subprocess.Popen(
        command,
        env={
            **os.environ,
            **environment(is_rehearsal=options.rehearse),
            **parts[0].environment,
            "PYTHONPATH": import_path(),
            MARK: mark,
        },
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"  stopped after {seconds:.0f} s", flush=True)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        end_stragglers(mark)
    spent = time.monotonic() - begin
    for name, attempt in attempts.items():
        end = results.end(name)
        if end is not None and end["attempt"] == attempt:
            continue
        if spent >= seconds:
            results.finish(name, attempt, "timed out", spent, f"after {seconds:.0f} s")
        else:
            results.finish(name, attempt, "failed", spent, f"the process ended with {code}")


def end_stragglers(mark: str) -> None:
    """Kill what a part left running: the ranks of a pod are in sessions of their own."""
    wanted = f"{MARK}={mark}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


def import_path() -> str:
    """The packages of this checkout, and those that the user added to PYTHONPATH."""
    return os.pathsep.join(filter(None, (python_path(), os.environ.get("PYTHONPATH"))))


if __name__ == "__main__":
    sys.exit(main())
