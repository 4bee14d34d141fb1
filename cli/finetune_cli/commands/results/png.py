"""Draws the plots with matplotlib and writes them to a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune_cli.commands.results.table import Series
from finetune_cli.terminal.errors import CommandError

INCHES = (9.0, 3.2)  # of one panel
DOTS_PER_INCH = 120


def write_png(path: Path, panels: Sequence[Sequence[Series]], title: str) -> None:
    """Raise CommandError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CommandError(
            "--png requires matplotlib, which is not installed",
            "pip install matplotlib, or plot in the terminal with --plot",
        ) from error
    width, height = INCHES
    figure = Figure(figsize=(width, height * len(panels)), dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle(title)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, index + 1)
        for number, series in enumerate(panel):
            # the first series has a value for each step: a line; the others are sparse: points
            style = {"marker": "o", "markersize": 3} if number else {"linewidth": 1.2}
            axes.plot(series.steps, series.values, label=series.name, **style)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, format="png")
