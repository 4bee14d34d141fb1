"""Draws the share of ended FineTunes over time, compared with the script, and each limit."""

from __future__ import annotations

from typing import Any

from bench.machine import RESULTS
from bench.table import Line

OURS, FLOOR = "#4078c8", "#b0b0b0"
STYLES = {
    "script: ended": (FLOOR, "-"),
    "script: first Job": (FLOOR, ":"),
    "operator: ended": (OURS, "-"),
    "operator: first Job": (OURS, ":"),
}

Curves = dict[
    str, list[float]
]  # by name in STYLES: the seconds after which 0, 1, ... 100 % had reached it


def draw(lines: list[Line], curves: dict[int, Curves]) -> str:
    """Draw one panel for each size and one with all targets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    judged = [line for line in lines if line.ratio is not None and _limit(line)]
    figure, axes = pyplot.subplots(
        1,
        len(curves) + 1,
        figsize=(5 * len(curves) + 7, 1.5 + 0.3 * len(judged)),
        width_ratios=[1] * len(curves) + [0.9],
        layout="constrained",
    )
    panels = list(axes) if curves else [axes]
    for axis, (size, of_size) in zip(panels, curves.items(), strict=False):
        for name, seconds in of_size.items():
            color, style = STYLES[name]
            axis.plot(seconds, range(101), style, color=color, label=name)
        axis.set_title(f"{size:,} at once", fontsize=10, loc="left")
        axis.set_xlabel("seconds")
        axis.set_ylabel("% of the FineTunes")
        axis.set_xlim(left=0)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    _draw_limits(panels[-1], judged[::-1])
    path = RESULTS / "operator.png"
    figure.savefig(path, dpi=120)
    return str(path)


def _draw_limits(axis: Any, judged: list[Line]) -> None:
    shares = [100 * (line.ratio or 0) / _limit(line) for line in judged]
    labels = [f"{line.part}: {line.name}" for line in judged]
    colors = [OURS if line.is_met else "#c84040" for line in judged]
    bars = axis.barh(labels, shares, color=colors)
    labels_of_bars = [f" {line.ratio:,.3g} of {_limit(line):g}" for line in judged]
    axis.bar_label(
        bars,
        labels_of_bars,
        fontsize=7,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
    )
    axis.axvline(100, color="k", linewidth=0.8, zorder=0)
    axis.set_title("% of each limit", fontsize=10, loc="left")
    axis.tick_params(labelsize=7)
    axis.margins(x=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def _limit(line: Line) -> float:
    """Return the limit; 0: there is none, or the budget is zero."""
    return float((line.target or "<= 0").split()[1])
