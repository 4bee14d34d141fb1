"""report.html: one file that needs nothing else, readable on a phone and without JavaScript."""

import hashlib
from base64 import b64encode
from typing import Any

from finetune_trainer.reporting import facts
from finetune_trainer.reporting.advice.evidence import gather
from finetune_trainer.reporting.advice.rules import advise
from finetune_trainer.reporting.charts.panels import column_rows, make_charts
from finetune_trainer.reporting.formatting import duration, excerpt, number, percent
from finetune_trainer.reporting.metric_curves import Curves
from finetune_trainer.reporting.report_data import ReportData

TEMPLATE, STYLE = "page.html.jinja", "page.css"
ATTEMPTS_SHOWN = 50


def page(data: ReportData) -> str:
    """Pure. Everything that strangers wrote is escaped; the page may load nothing at all."""
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
        "thousands": lambda count: f"{count:,}",
        "excerpt": excerpt,
    }
    style = environment.get_template(STYLE).render()
    return environment.get_template(TEMPLATE).render(
        style=style, style_digest=_digest(style), **_values(data)
    )


def _values(data: ReportData) -> dict[str, Any]:
    """What the template names."""
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
            "The model": facts.model_facts(data),
            "Data": facts.data_facts(data),
            "Hyperparameters, as used": facts.parameter_facts(data),
            "Machines and software": facts.machine_facts(data),
        },
        "attempts": data.attempts[-ATTEMPTS_SHOWN:],
        "earlier_attempts": max(0, len(data.attempts) - ATTEMPTS_SHOWN),
        "time": time,
    }


def _lead(data: ReportData, curves: Curves) -> str:
    """One sentence on how far it came."""
    steps = data.run.hyperparameters.steps(data.training.examples)
    done = curves.last_step
    epochs = data.run.hyperparameters.n_epochs
    tokens = curves.last("elapsed_tokens")
    parts = [
        f"{done:,} steps" if done == steps else f"{done:,} of {steps:,} steps",
        "1 epoch" if epochs == 1 else f"{epochs} epochs",
        f"{data.training.examples:,} examples",
    ]
    if tokens is not None:
        parts.append(f"{tokens:,.0f} tokens trained on")
    return ", ".join(parts)


def _digest(style: str) -> str:
    """By which the page's own style sheet is told from any other."""
    return b64encode(hashlib.sha256(style.encode()).digest()).decode()
