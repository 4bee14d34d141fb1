"""The Prometheus metrics of the gateway. Labels are from closed sets, but for those of TOKENS."""

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

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

REQUESTS = Counter(
    "finetune_gateway_requests",
    "Answered requests by method, route, and HTTP status.",
    ["method", "route", "status"],
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "finetune_gateway_request_seconds",
    "Time from the headers of a request to the end of its answer, without streams.",
    ["route"],
    buckets=BUCKETS,
    registry=REGISTRY,
)
OPEN_STREAMS = Gauge(
    "finetune_gateway_open_streams", "Streams of events that are open now.", registry=REGISTRY
)
UPLOAD_BYTES = Counter(
    "finetune_gateway_upload_bytes", "Bytes of files that were uploaded.", registry=REGISTRY
)
LOADING_ANSWERS = Counter(
    "finetune_gateway_loading_answers",
    "Answers 409: the model of the request did not load in time.",
    registry=REGISTRY,
)
TOKENS = Counter(
    "finetune_gateway_tokens",
    "Tokens of completions, as the servers of the models count them, by model, account of the API "
    "key (empty for a token of Kubernetes), and kind (prompt, completion).",
    ["model", "account", "kind"],
    registry=REGISTRY,
)
