"""The tables of metrics in docs/metrics.md and docs/training.md, from the registries."""

import re
from collections.abc import Iterable
from types import ModuleType

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from docs.generator.markdown import code, sentence, table
from docs.generator.source import ROOT
from finetune_gateway import metrics as gateway_metrics
from finetune_operator.telemetry import reconcile_metrics, request_metrics, serving_metrics
from finetune_operator.telemetry.state_collector import PROGRESS
from finetune_trainer.progress import GAUGES, METRICS

OPERATOR = "finetune_operator_"
SINCE_START = {"counter": "_total"}


def pages() -> dict[str, str]:
    """Map each page to its text with generated tables."""
    return {
        "metrics.md": _renewed(
            "metrics.md",
            {
                "finetunes": _finetunes(),
                "running": _running(),
                "served": _served(),
                "operator": _operator(),
                "gateway": _table(sorted(_kept(gateway_metrics))),
            },
        ),
        "training.md": _renewed("training.md", {"gauges": _gauges()}),
    }


def _renewed(page: str, tables: dict[str, str]) -> str:
    """Replace the text between `<!-- generated: NAME -->` and `<!-- end -->`."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for name, made in tables.items():
        region = re.compile(rf"(<!-- generated: {name} -->\n\n).*?(\n<!-- end -->)", re.DOTALL)
        if not region.search(text):
            raise ValueError(f"docs/{page} has no place for the table {name!r}")
        text = region.sub(lambda found, made=made: found[1] + made + found[2], text)  # type: ignore[misc]
    return text


def _row(name: str, kind: str, labels: Iterable[str], words: str) -> list[str]:
    listed = ", ".join(code(label) for label in labels)
    return [code(name + SINCE_START.get(kind, "")), kind, listed, sentence(words)]


def _kept(*modules: ModuleType) -> list[list[str]]:
    """Rows of the counters and histograms, which are module variables."""
    found = [
        item
        for module in modules
        for item in vars(module).values()
        if isinstance(item, MetricWrapperBase)
    ]
    rows = {}
    for item in found:
        (family,) = item.describe() or item.collect()
        rows[family.name] = _row(family.name, family.type, item._labelnames, family.documentation)
    return list(rows.values())


def _made_at_scrapes() -> list[list[str]]:
    """Rows of the gauges that collectors create. Their labels come from the declaration."""
    collectors = (reconcile_metrics.HEALTH, reconcile_metrics._states)
    families: list[Metric] = [item for collector in collectors for item in collector.collect()]
    return [
        _row(item.name, item.type, getattr(item, "_labelnames", ()), item.documentation)
        for item in families
    ]


def _served() -> str:
    (gauge,) = serving_metrics.SERVED.collect()
    labels = getattr(gauge, "_labelnames", ())
    row = _row(gauge.name, gauge.type, labels, gauge.documentation)
    return _table(sorted([*_kept(serving_metrics), row]))


def _all() -> list[list[str]]:
    return sorted([*_kept(reconcile_metrics, request_metrics), *_made_at_scrapes()])


def _operator() -> str:
    return _table(row for row in _all() if row[0].startswith(f"`{OPERATOR}"))


def _running() -> str:
    names = {code(f"finetune_job_{name}") for name in PROGRESS}
    return _table(row for row in _all() if row[0] in names)


def _finetunes() -> str:
    names = {code(f"finetune_job_{name}") for name in PROGRESS}
    return _table(
        row for row in _all() if row[0] not in names and not row[0].startswith(f"`{OPERATOR}")
    )


def _table(rows: Iterable[list[str]]) -> str:
    return table(["metric", "type", "labels", "description"], rows)


def _gauges() -> str:
    rows = [[code(f"finetune_{name}"), words] for name, words in (METRICS | GAUGES).items()]
    return table(["gauge", "description"], rows)
