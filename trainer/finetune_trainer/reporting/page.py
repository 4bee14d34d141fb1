"""report.html: one self-contained file without JavaScript, readable on a phone."""

import hashlib
from base64 import b64encode
from typing import Any

from finetune_data.tokenize.spans import visible
from finetune_trainer.reporting import facts
from finetune_trainer.reporting.advice.evidence import gather
from finetune_trainer.reporting.advice.rules import advise
from finetune_trainer.reporting.charts.panels import column_rows, make_charts
from finetune_trainer.reporting.formatting import count, duration, excerpt, number, percent
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.report_data import ReportData

TEMPLATE, STYLE = "page.html.jinja", "page.css"
ATTEMPTS_SHOWN = 50


def page(data: ReportData) -> str:
    """Render the page. Text from users is escaped, and the page is not allowed to load anything."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("finetune_trainer.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": number,
        "percent": percent,
        "duration": duration,
        "count": count,
        "thousands": lambda value: f"{value:,}",
        "excerpt": excerpt,
        "visible": lambda text: visible(text).replace("↵", "↵\n"),
    }
    style = environment.get_template(STYLE).render()
    return environment.get_template(TEMPLATE).render(
        style=style, style_digest=_digest(style), **_values(data)
    )


def _values(data: ReportData) -> dict[str, Any]:
    """The variables of the template."""
    curves = Curves.parse(data.results)
    tiles = facts.final_metrics(data, curves)
    if (time := facts.process_time(data)) is not None:
        tiles.append(time)
    charts = make_charts(data, curves)
    return {
        "data": data,
        "lead": _lead(data, curves),
        "tiles": tiles,
        "advice": advise(gather(data, curves)),
        "charts": charts,
        "has_parts": any(len(line.parts) > 1 for chart in charts for line in chart.lines),
        "columns": column_rows(curves),
        "curves": curves,
        "groups": {
            "Model": facts.model_facts(data),
            "Data": facts.data_facts(data),
            "Hyperparameters": facts.parameter_facts(data),
            "Machines and software": facts.machine_facts(data),
        },
        "share_columns": facts.SHARE_COLUMNS,
        "share_rows": facts.training_file_rows(data),
        "attempts": data.attempts[-ATTEMPTS_SHOWN:],
        "earlier_attempts": max(0, len(data.attempts) - ATTEMPTS_SHOWN),
        "time": time,
        "ends": [
            f"{facts.ends_sentence(end)}: {facts.how_learned(data, end)}."
            for end in data.dataset.ends
        ],
    }


def _lead(data: ReportData, curves: Curves) -> str:
    """The summary line: steps, epochs, examples, and tokens."""
    steps = data.run.hyperparameters.steps(data.training.examples)
    done = curves.last_step
    epochs = data.run.hyperparameters.n_epochs
    tokens = curves.last("elapsed_tokens")
    parts = [
        count(done, "step") if done == steps else f"{done:,} of {count(steps, 'step')}",
        count(epochs, "epoch"),
        count(data.training.examples, "example"),
    ]
    if tokens is not None:
        parts.append(f"{tokens:,.0f} trained tokens")
    return ", ".join(parts)


def _digest(style: str) -> str:
    """The hash by which the content security policy allows the style sheet of the page."""
    return b64encode(hashlib.sha256(style.encode()).digest()).decode()
