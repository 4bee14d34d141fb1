"""GET /progress and GET /metrics: what the pod is doing, for the operator and for Prometheus.

A thread that answers from a value held in memory; it never waits for the training.
"""

import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from finetune_api.outcome import ProgressReport

METRICS = {  # ProgressReport's fields as gauges
    "step": "Optimizer steps done",
    "steps": "Optimizer steps in all",
    "epoch": "Passes over the training file",
    "trained_tokens": "Tokens trained on, repeats counted",
    "training_loss": "Weighted loss of the last step",
    "validation_loss": "Weighted loss on the validation file or a batch of it",
    "validation_token_accuracy": "Right completion tokens / completion tokens",
    "validation_sequence_accuracy": "Completions with every token right / completions",
    "learning_rate": "Of the last step",
    "tokens_per_second": "Real tokens, over the last steps",
    "last_step_age": "Seconds since the last finished step",
    "checkpoint_step": "The last complete checkpoint",
}
GAUGES = {  # what only Prometheus is told
    "gradient_norm": "Before clipping, of the last step",
    "data_wait_seconds": "Of the last step, until its arrays were there",
    "checkpoint_copy_seconds": "That the training waited for the last checkpoint's copy",
    "checkpoint_seconds": "From the copy until the last checkpoint was complete",
    "gpu_memory_peak_bytes": "The most that rank 0's GPU held",
    "model_flops_utilisation": "Matrix products that the model needs / what the GPUs can (0 to 1)",
}


class ProgressTracker:
    """The report, replaced whole with each change, so that a reader needs no lock."""

    def __init__(self, attempt: int, starting_detail: Callable[[], str]) -> None:
        self._report = ProgressReport(stage="starting", attempt=attempt)
        self._starting_detail = starting_detail
        self._is_ready = False
        self._stepped_at = time.monotonic()
        self._gauges: dict[str, float] = {}

    def update(self, *, stepped: bool = False, **changes: Any) -> None:
        """`stepped`: an optimizer step (or an evaluation's or upload's piece) has just ended."""
        if stepped:
            self._stepped_at = time.monotonic()
        self._report = self._report.replace(**changes)

    def gauge(self, **values: float) -> None:
        """The newest of GAUGES."""
        self._gauges = {**self._gauges, **values}

    @property
    def gauges(self) -> dict[str, float]:
        return self._gauges

    def training_starts(self) -> None:
        """From now on the pod is ready."""
        self._is_ready = True
        self.update(stepped=True, stage="training", detail="")

    @property
    def is_ready(self) -> bool:
        return self._is_ready

    @property
    def report(self) -> ProgressReport:
        age = round(time.monotonic() - self._stepped_at, 1)
        if self._is_ready:
            return self._report.replace(last_step_age=age)
        detail = self._report.detail or self._starting_detail()
        return self._report.replace(detail=detail, last_step_age=age)

    def metrics(self) -> bytes:
        """Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Gauges(self))
        return generate_latest(registry)


class _Gauges:
    """A prometheus_client collector: reads the report when it is asked."""

    def __init__(self, progress: ProgressTracker) -> None:
        self._progress = progress

    def collect(self) -> Iterable[Any]:
        from prometheus_client.core import GaugeMetricFamily

        report = self._progress.report
        values = {name: getattr(report, name) for name in METRICS} | self._progress.gauges
        for name, value in values.items():
            if value is not None:
                text = METRICS.get(name) or GAUGES[name]
                yield GaugeMetricFamily(f"finetune_{name}", text, value=float(value))


class _Handler(BaseHTTPRequestHandler):
    progress: ProgressTracker
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds; for a connection that nobody uses

    def do_GET(self) -> None:
        status, kind = HTTPStatus.OK, "application/json"
        if self.path == "/progress":
            body = self.progress.report.to_json().encode()
            if not self.progress.is_ready:
                status = HTTPStatus.SERVICE_UNAVAILABLE
        elif self.path == "/metrics":
            body, kind = self.progress.metrics(), "text/plain; version=0.0.4"
        else:
            status, kind = HTTPStatus.NOT_FOUND, "text/plain"
            body = b"there are /progress and /metrics\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A probe every two seconds is no news."""


def serve(progress: ProgressTracker, port: int) -> ThreadingHTTPServer:
    """Start answering on every address of the pod; ends with the process."""
    handler = type("Handler", (_Handler,), {"progress": progress})
    server = ThreadingHTTPServer(("", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
