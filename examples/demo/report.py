"""The report at the end of the demo: lines of at most 80 columns. Pure."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from examples.demo.follow import local_time
from examples.demo.samples import Answers
from examples.demo.terminal import WIDTH, clock
from finetune_api.finetune_status import EventEntry

BARS = "▁▂▃▄▅▆▇█"
CHART_COLUMNS = 48
LEAST_ROWS = 300
LEAST_TIMES_MAJORITY = 2
END_SHARE = 20  # first and last loss: the mean of a twentieth of the steps


@dataclass(frozen=True)
class Results:
    """The columns of results.csv; None for an empty cell."""

    columns: dict[str, list[float | None]]

    @classmethod
    def parse(cls, text: str) -> Results:
        rows = list(csv.DictReader(io.StringIO(text)))
        names = list(rows[0]) if rows else []
        return cls(
            {name: [float(row[name]) if row[name] else None for row in rows] for name in names}
        )

    def measured(self, column: str) -> list[float]:
        """The cells of a column that are not empty."""
        return [value for value in self.columns.get(column, []) if value is not None]

    def first_and_last(self, column: str) -> tuple[float, float]:
        """Means over the first and the last steps, because one small batch is noisy."""
        values = self.measured(column)
        if not values:
            return 0.0, 0.0
        count = max(1, len(values) // END_SHARE)
        return sum(values[:count]) / count, sum(values[-count:]) / count


@dataclass(frozen=True)
class Outcome:
    """The results that the demo checks."""

    base_loss: tuple[float, float]
    loss: tuple[float, float]
    accuracy: float
    majority_share: float
    rows: int


def failed_checks(outcome: Outcome) -> list[str]:
    """One sentence for each result that is below the expectation."""
    found = []
    for name, (first, last) in (("base", outcome.base_loss), ("classify", outcome.loss)):
        if not last < first:
            found.append(f"The training loss of {name} did not fall: {first:.3f} to {last:.3f}.")
    if outcome.rows < LEAST_ROWS:
        found.append(f"There are {outcome.rows} validation rows instead of {LEAST_ROWS} or more.")
    if outcome.accuracy < LEAST_TIMES_MAJORITY * outcome.majority_share:
        found.append(
            f"The validation sequence accuracy is {outcome.accuracy:.3f}, less than "
            f"{LEAST_TIMES_MAJORITY} times the share of the majority class "
            f"({outcome.majority_share:.3f})."
        )
    return found


def events_table(events: Iterable[EventEntry]) -> list[str]:
    """Time and message of each event; long messages span several lines."""
    lines = []
    for event in events:
        mark = "" if event.level == "info" else f"{event.level}: "
        text = textwrap.wrap(mark + event.message, WIDTH - 14, break_on_hyphens=False) or [""]
        lines.append(f"    {local_time(event.at)}  {text[0]}")
        lines += [f"{'':14}{more}" for more in text[1:]]
    return lines


def loss_lines(results: Results) -> list[str]:
    """The training loss and the validation metrics as small charts."""
    lines = [_chart_line("training loss", results, "training_loss")]
    if results.measured("validation_sequence_accuracy"):
        lines.append(_chart_line("validation loss", results, "validation_loss"))
        lines.append(_chart_line("val. seq. accuracy", results, "validation_sequence_accuracy"))
    return lines


def _chart_line(title: str, results: Results, column: str) -> str:
    """First value, chart, and last value of a column.

    Validation values are not averaged: the last one covers the whole file, the others one batch.
    """
    values = results.measured(column)
    is_training = column.startswith("training")
    first, last = results.first_and_last(column) if is_training else (values[0], values[-1])
    return f"    {title:<18} {first:6.3f} {sparkline(values, WIDTH - 42)} {last:6.3f}"


def sparkline(values: Sequence[float], columns: int = CHART_COLUMNS) -> str:
    """A chart of one line; each character is a mean, and the lowest one is a thin bar."""
    if not values:
        return ""
    columns = min(columns, len(values))
    edges = [round(index * len(values) / columns) for index in range(columns + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def accuracy_lines(outcome: Outcome, answers: Answers) -> list[str]:
    """The classifier compared with always predicting the most frequent module."""
    times = outcome.accuracy / outcome.majority_share
    return [
        f"    validation sequence accuracy   {outcome.accuracy:6.1%}   {bar(outcome.accuracy)}",
        f"    share of the majority class    {outcome.majority_share:6.1%}   "
        f"{bar(outcome.majority_share)}",
        f"    The accuracy is {times:.1f} times the share of the majority class, on "
        f"{outcome.rows} rows",
        "    that the model has never seen. No row names its module.",
        f"    The published model, loaded with transformers, completes {answers.right} of "
        f"{answers.rows}",
        "    correctly.",
    ]


def bar(share: float, columns: int = 30) -> str:
    """A bar for a share of 0 to 1."""
    full = round(share * columns)
    return "█" * full + "·" * (columns - full)


def sample_lines(answers: Answers) -> list[str]:
    """The sample docstrings with their modules and the completions of the model."""
    lines = []
    for sample in answers.samples:
        for number, text in enumerate(textwrap.wrap(sample.docstring, WIDTH - 6)):
            lines.append(f"    {'“' if number == 0 else ' '}{text}")
        lines[-1] += "”"
        mark = "correct" if sample.got == sample.expected else "wrong"
        lines.append(f"        module: {sample.expected}   completion: {sample.got}   ({mark})")
    return lines


def time_lines(parts: Sequence[tuple[str, float]]) -> list[str]:
    """The duration of each part."""
    total = sum(seconds for _, seconds in parts)
    lines = [f"    {title:<52} {clock(seconds):>14}" for title, seconds in parts]
    return [*lines, f"    {'Total':<52} {clock(total):>14}"]


def next_lines(shell: Iterable[str], namespace: str, again: str, stop: str) -> list[str]:
    """Commands to paste into a shell, and below them those that change or stop the demo."""
    lines = [
        *(f"    {command}" for command in shell),
        '    export PATH="$PWD/.venv/bin:$PATH"   # the command finetune',
        f"    kubectl get finetunes -n {namespace}",
        f"    kubectl describe finetune classify -n {namespace}",
        f"    kubectl get models -n {namespace}",
        f"    finetune list -n {namespace}",
        f"    finetune report classify -n {namespace}",
        "",
        "To continue with a spreadsheet, see docs/tutorials/first-model.md.",
        f"`{again}` repeats the demo on the running cluster.",
    ]
    return [*lines, stop] if stop else lines
