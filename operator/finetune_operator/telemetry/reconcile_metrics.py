"""Metrics of reconciles and of FineTunes, counted when a status write has succeeded.

Labels are names of Kubernetes objects or closed sets. docs/metrics.md lists all metrics.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.finetune import FineTune
from finetune_api.finetune_status import FineTuneStatus
from finetune_api.names import Reason, State
from finetune_api.outcome import ProgressReport
from finetune_operator.core.deadlines import pending_since
from finetune_operator.core.key import Key
from finetune_operator.core.metrics import FAILURES, measure, phase
from finetune_operator.telemetry.request_metrics import REGISTRY
from finetune_operator.telemetry.state_collector import Known, StateCollector

MINUTE, HOUR = 60.0, 3600.0
LONG = (MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE)
LONG_BUCKETS = (5.0, 15.0, *LONG, *(n * HOUR for n in (1, 2, 4, 8, 16, 24, 48, 96, 168)))
SHORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

RECONCILES = Counter(
    "finetune_operator_reconciles", "Number of reconciles by result.", ["result"], registry=REGISTRY
)
REFUSED_STATUSES = Counter(
    "finetune_operator_refused_status_writes",
    "Number of writes of a FineTune's status that failed, by HTTP status; 0: no answer.",
    ["code"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "finetune_operator_reconcile_seconds",
    "Duration of a reconcile.",
    buckets=SHORT_BUCKETS,
    registry=REGISTRY,
)
JOBS = Counter(
    "finetune_jobs",
    "Number of finished FineTunes by result and reason.",
    ["result", "reason"],
    registry=REGISTRY,
)
DURATION = Histogram(
    "finetune_job_duration_seconds",
    "Time from acceptance to the end, including all waits.",
    ["result"],
    buckets=LONG_BUCKETS,
    registry=REGISTRY,
)
STAGES = Histogram(
    "finetune_job_stage_seconds",
    "Time in a stage, observed each time the stage ends.",
    ["stage"],
    buckets=LONG_BUCKETS,
    registry=REGISTRY,
)
RESTARTS = Counter(
    "finetune_restarts",
    "Number of restarts, by the reason why the previous attempt ended.",
    ["reason"],
    registry=REGISTRY,
)
GPU_SECONDS = Counter(
    "finetune_gpu_seconds",
    "GPU time of finished attempts: GPUs multiplied by seconds.",
    ["namespace"],
    registry=REGISTRY,
)
WASTED = Counter(
    "finetune_wasted_gpu_seconds",
    "GPU time that was lost: after the last checkpoint, or the whole attempt if it failed.",
    ["namespace", "reason"],
    registry=REGISTRY,
)
TOKENS = Counter(
    "finetune_trained_tokens",
    "Tokens that finished FineTunes were trained on, each epoch counted.",
    ["namespace"],
    registry=REGISTRY,
)

_states = StateCollector()
REGISTRY.register(_states)
# Start at 0: `rate` misses the first increment of a series that did not exist before.
for _result in ("done", "refused", "error"):
    RECONCILES.labels(_result)
for _reason in FAILURES:
    JOBS.labels(State.FAILED, _reason)
    RESTARTS.labels(_reason)
for _reason in (Reason.SUCCEEDED, Reason.ADOPTED, Reason.DRY_RUN):
    JOBS.labels(State.SUCCEEDED, _reason)
JOBS.labels(State.CANCELLED, Reason.CANCELLED)


class Health(Collector):
    """Gauges of the operator's work queue and watches."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._events: dict[str, float] = {}
        self._queue_length: Callable[[], int] = lambda: 0
        self._dead: Callable[[], list[str]] = list
        self._watched: tuple[str, ...] = ()

    def follow(
        self,
        queue_length: Callable[[], int],
        dead: Callable[[], list[str]],
        watched: tuple[str, ...],
    ) -> None:
        """Set the sources of the values. The process calls it once."""
        self._queue_length, self._dead, self._watched = queue_length, dead, watched

    def saw_event(self, resource: str) -> None:
        self._events[resource] = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "finetune_operator_queue_length",
            "Number of keys that wait for a reconcile or are being reconciled.",
            self._queue_length(),
        )
        alive = GaugeMetricFamily(
            "finetune_operator_watch_up", "1 while the watch is open, else 0.", labels=["resource"]
        )
        ages = GaugeMetricFamily(
            "finetune_operator_watch_age_seconds",
            "Seconds since the last event of the watch.",
            labels=["resource"],
        )
        dead = self._dead()
        for resource in self._watched:
            alive.add_metric([resource], 0 if resource in dead else 1)
            last = self._events.get(resource, self._started)
            ages.add_metric([resource], time.monotonic() - last)
        yield alive
        yield ages


HEALTH = Health()
REGISTRY.register(HEALTH)


def remember(key: Key, state: str | None) -> None:
    """Remember a FineTune that had ended before it was observed: only its state counts."""
    if state is not None:
        _states.remember(key, Known(state))


def forget(key: Key) -> None:
    """Forget a FineTune that is gone."""
    _states.forget(key)


def keep_only(existing: set[Key]) -> None:
    """Forget FineTunes that the sweep did not find: one may be deleted during its reconcile."""
    for key in _states.keys() - existing:
        _states.forget(key)


def observe(finetune: FineTune, after: FineTuneStatus, report: ProgressReport | None) -> None:
    """Update the gauges after a reconcile."""
    if after.state is None:
        return
    key = Key(finetune.metadata.namespace, finetune.metadata.name)
    former = _states.get(key)
    now_in = phase(after)
    began = former.phase_since if former and former.phase == now_in else None
    if began is None and phase(finetune.status) != now_in:
        began = datetime.now(UTC)
    waits = pending_since(finetune.replace(status=after))
    _states.remember(key, Known(after.state, waits, report, now_in, began))


def count_write(finetune: FineTune, after: FineTuneStatus, report: ProgressReport | None) -> None:
    """Update the counters after a status write that succeeded."""
    meta = finetune.metadata
    former = _states.get(Key(meta.namespace, meta.name))
    was_seen = former is not None and former.phase == phase(finetune.status)
    figures = measure(
        finetune,
        after,
        datetime.now(UTC),
        report or (former.report if former else None),
        former.phase_since if former is not None and was_seen else None,
    )
    for stage, seconds in figures.phases:
        STAGES.labels(stage).observe(seconds)
    for reason in figures.restarts:
        RESTARTS.labels(reason).inc()
    if figures.gpu_seconds:
        GPU_SECONDS.labels(meta.namespace).inc(figures.gpu_seconds)
    for reason, seconds in figures.wasted:
        WASTED.labels(meta.namespace, reason).inc(seconds)
    if figures.result is not None:
        JOBS.labels(figures.result, figures.reason).inc()
        DURATION.labels(figures.result).observe(figures.duration or 0.0)
        TOKENS.labels(meta.namespace).inc(figures.trained_tokens)
