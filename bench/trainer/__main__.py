"""`python -m bench.trainer`: tokens per second, memory, the first step, overhead, checkpoints."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.machine import RESULTS, refuse_when_loaded, save
from bench.table import Line, row
from bench.trainer import environments
from bench.trainer.checkpoints import checkpoints
from bench.trainer.first_step import first_step
from bench.trainer.measurement import Settings
from bench.trainer.sections import memory, overhead, throughput

SECTIONS = {
    "throughput": throughput,
    "memory": memory,
    "first-step": first_step,
    "overhead": overhead,
    "checkpoints": checkpoints,
}

THREADS = 2


def main() -> None:
    """Compare with TRL on the same token ids and weights, in interleaved fresh processes."""
    parser = argparse.ArgumentParser(description=f"{__doc__} {main.__doc__}")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="run this section only (repeatable)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (default: 3)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="run one round with a few steps",
    )
    parser.add_argument("--force", action="store_true", help="run on a loaded machine, too")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(THREADS)  # for every measured process
    environments.trl_python()
    environments.trainer_python()
    refuse_when_loaded(is_forced=options.force)
    load = os.getloadavg()[0]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="bench-trainer-") as folder:
        settings = Settings(
            Path(folder), rounds=1 if options.quick else options.rounds, is_quick=options.quick
        )
        for name in options.only or SECTIONS:
            lines += SECTIONS[name](settings)
    print(f"\nload before: {load:.2f}; medians (and spread); ratio: ours / theirs")
    for line in lines:
        print(row(line, has_verdict=not options.quick))
    if options.quick:
        print("The benchmark works. A quick run writes no results.")
    else:
        values = {
            "load": load,
            "threads": THREADS,
            "processors": os.cpu_count(),
            "versions": versions(),
            "lines": [{**asdict(line), "is_met": line.is_met} for line in lines],
        }
        print(f"wrote {save('trainer', values)}, {draw(lines)}")


def versions() -> dict[str, str]:
    """The measured versions; torch and transformers are the same in both environments."""
    ours = {name: version(name) for name in ("torch", "transformers", "deepspeed")}
    return {**ours, "trl": environments.TRL}


def draw(lines: list[Line]) -> str:
    """Draw a panel per section: medians as bars, rounds as dots."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = list(dict.fromkeys(line.part for line in lines))
    figure, axes = pyplot.subplots(
        len(parts),
        1,
        figsize=(9, 0.6 * len(parts) + 0.42 * len(lines)),
        squeeze=False,
        height_ratios=[1 + sum(line.part == part for line in lines) for part in parts],
    )
    for axis, part in zip(axes[:, 0], parts, strict=True):
        shown = [line for line in lines if line.part == part][::-1]
        middles = [statistics.median(line.values) for line in shown]
        colors = ["#4078c8" if line.is_ours else "#b0b0b0" for line in shown]
        axis.barh([line.name for line in shown], middles, color=colors)
        for height, (line, middle) in enumerate(zip(shown, middles, strict=True)):
            axis.plot(line.values, [height] * len(line.values), "k.", markersize=4)
            axis.annotate(
                f"{middle:,.4g} {line.unit}",
                (max(0, *line.values), height),
                xytext=(6, 0),
                textcoords="offset points",
                verticalalignment="center",
                fontsize=8,
            )
        axis.set_title(part, fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.2)
    figure.tight_layout()
    path = RESULTS / "trainer.png"
    figure.savefig(path, dpi=120)
    return str(path)


if __name__ == "__main__":
    main()
