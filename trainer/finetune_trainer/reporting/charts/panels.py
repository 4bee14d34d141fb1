"""The assignment of columns to charts, and the table of all columns."""

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_trainer.evaluation.class_metrics import PREFIX as CLASSIFICATION
from finetune_trainer.reporting.charts.axes import Unit
from finetune_trainer.reporting.charts.chart import Chart, Mark
from finetune_trainer.reporting.charts.lines import Line
from finetune_trainer.reporting.formatting import metric_label, number
from finetune_trainer.reporting.metric_curves import STEP, Curves, Point
from finetune_trainer.reporting.report_data import ReportData

COUNTERS = (STEP, "elapsed_tokens", "elapsed_examples")
LINES = 8  # of one chart: the number of distinguishable colors
VALIDATION = "validation_"  # measured on one batch, and on the whole file at the end of an epoch
SPEED = "tokens_per_second"


@dataclass(frozen=True)
class Panel:
    """The title of a chart and the labels of its columns."""

    title: str
    columns: dict[str, str]
    unit: Unit = "plain"
    may_be_logarithmic: bool = False
    is_noisy: bool = True


PANELS = (
    Panel(
        "Loss",
        {"training_loss": "training", "validation_loss": "validation"},
        may_be_logarithmic=True,
    ),
    Panel(
        "Completion loss",
        {"training_completion_loss": "training", "validation_completion_loss": "validation"},
        may_be_logarithmic=True,
    ),
    Panel(
        "Token accuracy",
        {"training_token_accuracy": "training", "validation_token_accuracy": "validation"},
        unit="percent",
    ),
    Panel(
        "Sequence accuracy",
        {"training_sequence_accuracy": "training", "validation_sequence_accuracy": "validation"},
        unit="percent",
    ),
    Panel("Learning rate", {"learning_rate": "learning rate"}, is_noisy=False),
    Panel("Gradient norm", {"gradient_norm": "before clipping"}, may_be_logarithmic=True),
    Panel("Throughput", {SPEED: "tokens per second"}, unit="count"),
)


def make_charts(data: ReportData, curves: Curves) -> list[Chart]:
    """Charts of all measured columns; an unknown column gets a chart of its own."""
    measured = dict(curves.columns)
    if data.speeds:
        measured[SPEED] = [Point(speed.step, speed.tokens_per_second) for speed in data.speeds]
    marks = make_marks(data)
    charts = []
    ends = frozenset(epoch.step for epoch in data.epochs)
    for panel in _panels(measured):
        lines = [
            Line(name, label, measured[name], ends if name.startswith(VALIDATION) else ())
            for name, label in panel.columns.items()
            if name in measured
        ]
        if lines:
            charts.append(
                Chart(
                    panel.title,
                    lines,
                    last_step=curves.last_step,
                    unit=panel.unit,
                    may_be_logarithmic=panel.may_be_logarithmic,
                    is_noisy=panel.is_noisy,
                    marks=marks,
                )
            )
    return charts


def _panels(measured: dict[str, list[Point]]) -> Iterator[Panel]:
    yield from PANELS
    classes = [name for name in measured if name.startswith(CLASSIFICATION)]
    for start in range(0, len(classes), LINES):
        part = classes[start : start + LINES]
        labels = {name: metric_label(name) for name in part}
        # the trainer writes shares; a file from elsewhere can have any values
        values = [point.value for name in part for point in measured[name]]
        unit: Unit = "percent" if all(0 <= value <= 1 for value in values) else "plain"
        yield Panel("Classification (validation file)", labels, unit=unit)
    known = {name for panel in PANELS for name in panel.columns} | set(COUNTERS) | set(classes)
    for name in measured:
        if name not in known:
            yield Panel(name, {name: name})


def make_marks(data: ReportData) -> list[Mark]:
    """The ends of epochs, and the steps from which attempts continued."""
    epochs = [Mark(epoch.step, f"epoch {epoch.epoch}") for epoch in data.epochs]
    restarts = [
        Mark(attempt.from_step, f"attempt {attempt.number} continued", "restart")
        for attempt in data.attempts
        if attempt.from_step
    ]
    return [*epochs, *restarts]


@dataclass(frozen=True)
class ColumnRow:
    """A row of the table of all columns, with formatted values."""

    name: str
    count: int
    first: str
    last: str
    lowest: str
    highest: str


def column_rows(curves: Curves) -> list[ColumnRow]:
    """A row for every measured column of results.csv."""
    rows = []
    for name, points in curves.columns.items():
        finite = curves.finite(name)
        if name == STEP:
            continue
        if not finite:
            rows.append(ColumnRow(name, len(points), "–", "–", "never finite", "–"))
            continue
        low = min(finite, key=lambda point: point.value)
        high = max(finite, key=lambda point: point.value)
        write = _whole if name in COUNTERS else number
        rows.append(
            ColumnRow(
                name,
                len(points),
                write(points[0].value),
                write(points[-1].value),
                f"{write(low.value)} (step {low.step:,})",
                f"{write(high.value)} (step {high.step:,})",
            )
        )
    return rows


def _whole(value: float) -> str:
    return f"{value:,.0f}"
