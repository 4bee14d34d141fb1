"""`python -m bench.operator`: the cost of the operator and the delays of FineTunes."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict

from bench import machine
from bench.machine import refuse_when_loaded, save
from bench.operator import kwok_baseline, sections
from bench.operator.plot import draw
from bench.table import Line, row

SECTIONS = {
    "kwok": kwok_baseline.kwok,
    "writes": sections.writes,
    "bursts": sections.bursts,
    "restart": sections.restart,
    "poison": sections.poison,
    "concurrent": sections.concurrent,
    "soak": sections.soak,
}


def main() -> None:
    """Runs an API server, Job controller, and scheduler, with kwok as kubelets, without root."""
    parser = argparse.ArgumentParser(description=f"{__doc__} {main.__doc__}")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="run only this section (repeatable)"
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=[100, 1000],
        help="number of FineTunes created at once (default: 100,1000)",
    )
    parser.add_argument(
        "--settled",
        type=int,
        default=sections.SETTLED,
        help="number of ended FineTunes at the restart",
    )
    parser.add_argument(
        "--concurrent",
        type=int,
        default=sections.CONCURRENT,
        help="number of FineTunes at once in the section of that name",
    )
    parser.add_argument(
        "--waves", type=int, default=sections.WAVES, help="waves of the soak (default: 20)"
    )
    parser.add_argument(
        "--wave-size", type=int, default=sections.MANY, help="FineTunes of a wave (default: 1000)"
    )
    parser.add_argument(
        "--idle", type=float, default=sections.IDLE_SECONDS, help="seconds of the idle measurement"
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each short run (default: 3)"
    )
    parser.add_argument("--force", action="store_true", help="run on a busy machine as well")
    options = parser.parse_args()
    refuse_when_loaded(is_forced=options.force)
    os.environ["PYTHONPATH"] = machine.python_path()  # inherited by the operator's process
    load = os.getloadavg()[0]
    settings = sections.Settings(
        sizes=options.sizes,
        rounds=options.rounds,
        settled=options.settled,
        concurrent=options.concurrent,
        waves=options.waves,
        wave_size=options.wave_size,
        idle_seconds=options.idle,
        say=lambda text: print(text, flush=True),
    )
    lines: list[Line] = []
    for name in options.only or SECTIONS:
        lines += SECTIONS[name](settings)
    print(f"\nload {load:.2f} at the start; medians and ranges")
    for line in lines:
        print(row(line))
    if options.only:
        print("results are saved only after a run of all sections")
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
