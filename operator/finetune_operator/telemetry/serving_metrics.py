"""Metrics of served Models: their states, and how long a model takes to become ready."""

from collections import Counter as Tally
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import get_args

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.serving import ServingState, ServingStatus
from finetune_operator.core.key import Key
from finetune_operator.telemetry.request_metrics import REGISTRY

STATES: tuple[ServingState, ...] = get_args(ServingState)
START_BUCKETS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)

WAKES = Counter(
    "finetune_model_wakes", "Number of served models that a request has woken.", registry=REGISTRY
)
START_SECONDS = Histogram(
    "finetune_model_start_seconds",
    "Time that served models took from loading to ready.",
    buckets=START_BUCKETS,
    registry=REGISTRY,
)


class ServedModels(Collector):
    """The served Models by namespace and state."""

    def __init__(self) -> None:
        self.states: dict[Key, ServingState] = {}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "finetune_served_models",
            "Number of served models by state.",
            labels=["namespace", "state"],
        )
        tally = Tally((key.namespace, state) for key, state in self.states.items())
        for namespace in sorted({key.namespace for key in self.states}):
            for state in STATES:
                family.add_metric([namespace, state], tally[namespace, state])
        yield family


SERVED = ServedModels()
REGISTRY.register(SERVED)


def observe(key: Key, before: ServingStatus | None, after: ServingStatus) -> None:
    """Count a reconcile whose status is written."""
    SERVED.states[key] = after.state
    if before is None or before.state == after.state:
        return
    if before.state == "asleep":
        WAKES.inc()
    if before.state == "loading" and after.state == "ready":
        since = datetime.fromisoformat(before.since)
        START_SECONDS.observe(max(0.0, (datetime.now(UTC) - since).total_seconds()))


def forget(key: Key) -> None:
    """Forget a Model that is gone, or not served any more."""
    SERVED.states.pop(key, None)
