"""The Prometheus registry of the operator, and metrics of its requests to the API server."""

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the series, and Prometheus has the information

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

API_WRITES = Counter(
    "finetune_operator_api_writes",
    "Write requests to the API server, including rejected ones.",
    ["verb", "resource"],
    registry=REGISTRY,
)
API_ERRORS = Counter(
    "finetune_operator_api_errors",
    "Requests to the API server that failed, by HTTP status; 0: no answer.",
    ["code"],
    registry=REGISTRY,
)


def count_write(method: str, path: str) -> None:
    """Count a write request by verb and resource, whether it succeeds or not."""
    API_WRITES.labels(method.lower(), _resource(method, path)).inc()


def count_error(status: int) -> None:
    API_ERRORS.labels(str(status)).inc()


def _resource(method: str, path: str) -> str:
    """The plural and the subresource, if any, but no object name: labels are a closed set."""
    parts = path.strip("/").split("/")
    after = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/..., /apis/group/version/...
    if after[0] == "namespaces" and len(after) > 2:
        after = after[2:]
    return after[0] if method == "POST" else "/".join([after[0], *after[2:]])
