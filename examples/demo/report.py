"""What the demo says at its end. Pure: values in, lines of at most 80 columns out."""

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
    """What results.csv says, column by column; None where a cell is empty."""

    columns: dict[str, list[float | None]]

    @classmethod
    def parse(cls, text: str) -> Results:
        rows = list(csv.DictReader(io.StringIO(text)))
        names = list(rows[0]) if rows else []
        return cls(
            {name: [float(row[name]) if row[name] else None for row in rows] for name in names}
        )

    def measured(self, column: str) -> list[float]:
        """The cells that hold something."""
        return [value for value in self.columns.get(column, []) if value is not None]

    def first_and_last(self, column: str) -> tuple[float, float]:
        """Means over the first and the last steps: one small batch says little."""
        values = self.measured(column)
        if not values:
            return 0.0, 0.0
        count = max(1, len(values) // END_SHARE)
        return sum(values[:count]) / count, sum(values[-count:]) / count


@dataclass(frozen=True)
class Claims:
    """What the demo promises to show."""

    base_loss: tuple[float, float]
    loss: tuple[float, float]
    accuracy: float
    majority_share: float
    rows: int


def broken_promises(claims: Claims) -> list[str]:
    """A clear sentence for each promise that was not kept."""
    found = []
    for name, (first, last) in (("base", claims.base_loss), ("classifier", claims.loss)):
        if not last < first:
            found.append(f"the {name}'s training loss did not fall: {first:.3f} to {last:.3f}")
    if claims.rows < LEAST_ROWS:
        found.append(f"only {claims.rows} validation rows, {LEAST_ROWS} are promised")
    if claims.accuracy < LEAST_TIMES_MAJORITY * claims.majority_share:
        found.append(
            f"validation sequence accuracy {claims.accuracy:.3f} is under "
            f"{LEAST_TIMES_MAJORITY} times the majority class's share, {claims.majority_share:.3f}"
        )
    return found


def events_table(events: Iterable[EventEntry]) -> list[str]:
    """Time and message, long messages over several lines."""
    lines = []
    for event in events:
        mark = "" if event.level == "info" else f"{event.level}: "
        text = textwrap.wrap(mark + event.message, WIDTH - 14, break_on_hyphens=False) or [""]
        lines.append(f"    {local_time(event.at)}  {text[0]}")
        lines += [f"{'':14}{more}" for more in text[1:]]
    return lines


def loss_lines(results: Results) -> list[str]:
    """The training loss, and the validation where there is one, as small charts."""
    lines = [_chart_line("training loss", results, "training_loss")]
    if results.measured("validation_sequence_accuracy"):
        lines.append(_chart_line("validation loss", results, "validation_loss"))
        lines.append(_chart_line("val. seq. accuracy", results, "validation_sequence_accuracy"))
    return lines


def _chart_line(title: str, results: Results, column: str) -> str:
    """The last validation is of the whole file, those on the way of one batch: no mean of them."""
    values = results.measured(column)
    is_training = column.startswith("training")
    first, last = results.first_and_last(column) if is_training else (values[0], values[-1])
    return f"    {title:<18} {first:6.3f} {sparkline(values, WIDTH - 42)} {last:6.3f}"


def sparkline(values: Sequence[float], columns: int = CHART_COLUMNS) -> str:
    """One character a column, the mean of its values; the lowest is a thin line."""
    if not values:
        return ""
    columns = min(columns, len(values))
    edges = [round(index * len(values) / columns) for index in range(columns + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(BARS) - 1) or 1
    return "".join(BARS[round((mean - low) / step)] for mean in means)


def accuracy_lines(claims: Claims, answers: Answers) -> list[str]:
    """The classifier against always saying the most frequent module."""
    times = claims.accuracy / claims.majority_share
    return [
        f"    validation sequence accuracy   {claims.accuracy:6.1%}   {bar(claims.accuracy)}",
        f"    majority class's share         {claims.majority_share:6.1%}   "
        f"{bar(claims.majority_share)}",
        f"    {times:.1f} times as good, on {claims.rows} rows that it has never seen; none names",
        "    its module",
        "    the published model, loaded by transformers, writes "
        f"{answers.right} of {answers.rows} right",
    ]


def bar(share: float, columns: int = 30) -> str:
    """A share as a bar."""
    full = round(share * columns)
    return "█" * full + "·" * (columns - full)


def sample_lines(answers: Answers) -> list[str]:
    """Three docstrings, what they are from, and what the model says."""
    lines = []
    for sample in answers.samples:
        for number, text in enumerate(textwrap.wrap(sample.docstring, WIDTH - 6)):
            lines.append(f"    {'“' if number == 0 else ' '}{text}")
        lines[-1] += "”"
        mark = "right" if sample.got == sample.expected else "wrong"
        lines.append(
            f"        is from: {sample.expected}   the model says: {sample.got}   ({mark})"
        )
    return lines


def time_lines(parts: Sequence[tuple[str, float]]) -> list[str]:
    """How long each part took."""
    total = sum(seconds for _, seconds in parts)
    lines = [f"    {title:<52} {clock(seconds):>14}" for title, seconds in parts]
    return [*lines, f"    {'all':<52} {clock(total):>14}"]


def next_lines(kubeconfig: str, programs: str, namespace: str, *, is_own: bool) -> list[str]:
    """How to go on: a block to be pasted into a shell, and apart from it what changes much."""
    if is_own:
        lines = ['    eval "$(python3 -m devcluster env)"  # the cluster, kubectl, its S3 store']
    else:
        lines = [f"    export KUBECONFIG={kubeconfig}"]
        lines += [f"    export PATH={programs}:$PATH"] if programs else []
    lines += [
        '    export PATH="$PWD/.venv/bin:$PATH"   # the command `finetune`',
        f"    kubectl get finetunes -n {namespace}",
        f"    kubectl describe finetune classify -n {namespace}",
        f"    kubectl get models -n {namespace}",
        f"    finetune list -n {namespace}",
        f"    finetune report classify -n {namespace}",
        "",
        "docs/tutorials/first-model.md goes on from here, with a spreadsheet.",
        "`make demo` trains all of this again, on the warm cluster.",
    ]
    if is_own:
        lines.append("`make down` stops the cluster and leaves nothing behind: the models go, too.")
    return lines
