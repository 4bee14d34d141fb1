"""`python -m bench.cli`: the time until help appears; the limit is 0.3 s on an idle machine."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from bench.machine import median, python_path, refuse_when_loaded, save, spread

WANTED = 0.3  # seconds for `finetune --help`
ENTRY = ("-m", "finetune_cli")
COMMANDS: dict[str, Sequence[str]] = {
    "python -c pass": ("-c", "pass"),
    "finetune --help": (*ENTRY, "--help"),
    "finetune create --help": (*ENTRY, "create", "--help"),
    "finetune complete --help": (*ENTRY, "complete", "--help"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--force", action="store_true", help="run on a busy machine as well")
    options = parser.parse_args()
    refuse_when_loaded(is_forced=options.force)
    found = {name: measure(words, options.repeats) for name, words in COMMANDS.items()}
    for name, seconds in found.items():
        print(f"{name:<26} {spread(seconds)} s")
    reached = median(found["finetune --help"]) <= WANTED
    print(f"help within {WANTED} s: {'yes' if reached else 'no'}")
    save("cli", {"wanted": WANTED, "seconds": found})


def measure(words: Sequence[str], repeats: int) -> list[float]:
    """Return the wall times of new processes, without the first one, which fills the page cache."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, *words],
            env={**os.environ, "PYTHONPATH": python_path()},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    main()
