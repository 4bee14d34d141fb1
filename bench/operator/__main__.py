"""`python -m bench.operator`: what the operator costs, and how long it keeps FineTunes waiting."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict

from bench import machine
from bench.machine import refuse_when_loaded, save
from bench.operator import floor, parts
from bench.operator.plot import draw
from bench.table import Line, row

PARTS = {
    "kwok": floor.kwok,
    "writes": parts.writes,
    "bursts": parts.bursts,
    "restart": parts.restart,
    "poison": parts.poison,
}


def main() -> None:
    """A real API server, Job controller and scheduler, kwok for the kubelets; as any user."""
    parser = argparse.ArgumentParser(description=f"{__doc__} {main.__doc__}")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part (repeatable)")
    parser.add_argument(
        "--sizes", type=_sizes, default=[100, 1000], help="at once (default: 100,1000)"
    )
    parser.add_argument("--settled", type=int, default=parts.SETTLED, help="at the restart")
    parser.add_argument("--idle", type=float, default=parts.IDLE_SECONDS, help="seconds")
    parser.add_argument("--rounds", type=int, default=3, help="of short runs (default: 3)")
    parser.add_argument("--force", action="store_true", help="on a loaded machine, too")
    options = parser.parse_args()
    refuse_when_loaded(is_forced=options.force)
    os.environ["PYTHONPATH"] = machine.python_path()  # of the operator's process
    load = os.getloadavg()[0]
    settings = parts.Settings(
        sizes=options.sizes,
        rounds=options.rounds,
        settled=options.settled,
        idle_seconds=options.idle,
        say=lambda words: print(words, flush=True),
    )
    lines: list[Line] = []
    for name in options.only or PARTS:
        lines += PARTS[name](settings)
    print(f"\nload {load:.2f} before; medians, in brackets the spread; beside a target its figure")
    for line in lines:
        print(row(line))
    if options.only:
        print("a part alone is not written")
        return
    values = {
        "load": load,
        "processors": os.cpu_count(),
        "lines": [{**asdict(line), "is_met": line.is_met} for line in lines],
        "curves": settings.curves,
    }
    print(f"written: {save('operator', values)}, {draw(lines, settings.curves)}")


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
