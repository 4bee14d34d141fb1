"""`python -m bench.operator`: the cost of the operator and the delays of FineTunes."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from bench import machine
from bench.machine import refuse_when_loaded
from bench.operator import kwok_baseline, sections
from bench.operator.results import Results
from bench.table import row

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
        "--only",
        choices=SECTIONS,
        action="append",
        help="run only this section (repeatable), and keep the saved results of the others",
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process remains
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
    results = Results.read(options.only)
    for name in options.only or SECTIONS:
        found = list(SECTIONS[name](settings))
        results.replace(found, load)
        print("\n".join(row(line) for line in found), flush=True)
        print(f"written: {results.save(settings.curves)}", flush=True)
    print(f"\nload {load:.2f} at the start; medians and ranges")
    for line in results.lines:
        print(row(line))


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
