"""The operator's own registry, and what its requests to the API server count."""

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # half the series, told by Prometheus itself

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

API_WRITES = Counter(
    "finetune_operator_api_writes",
    "Requests to the API server that change something, refused ones too.",
    ["verb", "resource"],
    registry=REGISTRY,
)
API_ERRORS = Counter(
    "finetune_operator_api_errors",
    "Requests that got no answer (code 0) or one of 400 and above.",
    ["code"],
    registry=REGISTRY,
)


def count_write(method: str, path: str) -> None:
    """By verb and kind, whether the API server accepts it or not."""
    API_WRITES.labels(method.lower(), _resource(method, path)).inc()


def count_error(status: int) -> None:
    API_ERRORS.labels(str(status)).inc()


def _resource(method: str, path: str) -> str:
    """The plural, and the subresource where there is one: bounded words, never a name."""
    parts = path.strip("/").split("/")
    after = parts[2:] if parts[0] == "api" else parts[3:]  # /api/v1/..., /apis/group/version/...
    if after[0] == "namespaces" and len(after) > 2:
        after = after[2:]
    return after[0] if method == "POST" else "/".join([after[0], *after[2:]])
