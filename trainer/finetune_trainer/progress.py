"""GET /progress for the operator, and GET /metrics for Prometheus.

A thread answers from a value in memory; it never waits for the training.
"""

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from finetune_api.names import Stage
from finetune_api.outcome import ProgressReport

METRICS = {  # the fields of ProgressReport that are gauges
    "step": "Completed optimizer steps",
    "steps": "Optimizer steps of the whole run",
    "epoch": "Completed passes over the training file",
    "trained_tokens": "Trained tokens, counted again in each epoch",
    "training_loss": "Weighted training loss of the last step",
    "validation_loss": "Weighted loss on the validation file, or on a batch of it",
    "validation_token_accuracy": "Correctly predicted completion tokens / completion tokens",
    "validation_sequence_accuracy": "Completions predicted correctly in every token / completions",
    "learning_rate": "Learning rate of the last step",
    "tokens_per_second": "Trained tokens per second over the last steps, without padding",
    "last_step_age": "Seconds since the last completed step",
    "checkpoint_step": "Step of the last complete checkpoint",
}
GAUGES = {  # reported to Prometheus only
    "gradient_norm": "Norm of the gradient of the last step, before clipping",
    "data_wait_seconds": "Seconds that the last step waited for its batch",
    "checkpoint_copy_seconds": "Seconds that training waited for the copy of the last checkpoint",
    "checkpoint_seconds": "Seconds from the copy of the last checkpoint until it was complete",
    "gpu_memory_peak_bytes": "Peak memory of rank 0's GPU",
    "model_flops_utilisation": "Model FLOP/s / peak FLOP/s of the GPUs, or MFU (0 to 1)",
}


class ProgressTracker:
    """Holds the current report; each change replaces the whole value, so readers need no lock."""

    def __init__(self, attempt: int, starting_detail: Callable[[], str]) -> None:
        self._report = ProgressReport(stage=Stage.STARTING, attempt=attempt)
        self._starting_detail = starting_detail
        self._is_ready = False
        self._stepped_at = time.monotonic()
        self._gauges: dict[str, float] = {}

    def update(self, *, stepped: bool = False, **changes: Any) -> None:
        """stepped: an optimizer step, or a part of an evaluation or upload, has just completed."""
        if stepped:
            self._stepped_at = time.monotonic()
        self._report = self._report.replace(**changes)

    def gauge(self, **values: float) -> None:
        """Set values of GAUGES."""
        self._gauges = {**self._gauges, **values}

    @property
    def gauges(self) -> dict[str, float]:
        return self._gauges

    def start_training(self) -> None:
        """Mark the pod as ready."""
        self._is_ready = True
        self.update(stepped=True, stage=Stage.TRAINING, detail="")

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
        """Return the metrics in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Gauges(self))
        return generate_latest(registry)


class _Gauges:
    """A prometheus_client collector that reads the report for each scrape."""

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
    timeout = 60  # seconds; for an idle connection

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
            body = b"not found; the paths are /progress and /metrics\n"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Do not log: there is a probe every two seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:  # and IPv4 as well
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        socketserver.TCPServer.server_bind(self)  # HTTPServer would ask DNS for our name
        self.server_name, self.server_port = "", self.server_address[1]


class _DualStackServer(_Server):
    address_family = socket.AF_INET6


def serve(progress: ProgressTracker, port: int) -> ThreadingHTTPServer:
    """Start a server on all addresses of the pod, IPv6 and IPv4; it ends with the process."""
    handler = type("Handler", (_Handler,), {"progress": progress})
    server = _listen(handler, port)
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server


def _listen(handler: type[_Handler], port: int) -> ThreadingHTTPServer:
    """Listen on IPv4 only where IPv6 is off: in the kernel, or by a setting of the node."""
    if socket.has_dualstack_ipv6():
        try:
            return _DualStackServer(("::", port), handler)
        except OSError:  # an address in use is an error of the next call, too
            pass
    return _Server(("", port), handler)
