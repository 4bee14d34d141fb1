"""The Prometheus metrics of the server. Labels are from closed sets."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

REQUESTS = Counter(
    "finetune_serving_requests",
    "Answered requests by route and HTTP status.",
    ["route", "status"],
    registry=REGISTRY,
)
TOKENS = Counter(
    "finetune_serving_tokens",
    "Tokens of completions by kind (prompt, completion).",
    ["kind"],
    registry=REGISTRY,
)
WAITING = Gauge(
    "finetune_serving_requests_in_progress",
    "Requests that wait for a model, or for which a model generates.",
    registry=REGISTRY,
)
LOADED = Gauge("finetune_serving_loaded_models", "Models in memory.", registry=REGISTRY)
LOAD_SECONDS = Histogram(
    "finetune_serving_load_seconds",
    "Time to download, verify, and load a model.",
    buckets=(1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0),
    registry=REGISTRY,
)
