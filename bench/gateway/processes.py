"""The gateway's process as the chart starts it, and the process of the servers behind it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.gateway.peers import NAMESPACE
from bench.machine import python_path

READY_SECONDS = 30.0
TOKEN = "eyJhbGciOiJub25lIn0.e30.YmVuY2g"


@dataclass(frozen=True)
class Subject:
    """The running processes."""

    gateway: str  # URLs that end in /v1
    direct: str
    pid: int  # of the gateway

    def resident_mb(self) -> float:
        """The resident memory of the gateway in 10^6 bytes."""
        return self._status("VmRSS")

    def peak_mb(self) -> float:
        """The highest resident memory since its start, or since the peak was reset."""
        return self._status("VmHWM")

    def reset_peak(self) -> None:
        """Let the peak begin again at the present value."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> float:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        kibibytes = next(line for line in lines if line.startswith(name)).split()[1]
        return int(kibibytes) * 1024 / 1e6


@contextmanager
def running() -> Iterator[Subject]:
    environment = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "AWS_ACCESS_KEY_ID": "bench",  # the gateway opens its store, which nothing here uses
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
    }
    peers = subprocess.Popen(
        [sys.executable, "-m", "bench.gateway.peers"], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert peers.stdout is not None
        ports = json.loads(peers.stdout.readline())
        with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
            files = _write_files(Path(folder), ports)
            port, probes = free_port(), free_port()
            command = [sys.executable, "-m", "finetune_gateway", "run", *files]
            command += ["--address", "127.0.0.1", "--port", str(port), "--log-level", "WARNING"]
            gateway = subprocess.Popen(
                [*command, "--operations-port", str(probes)], env=environment
            )
            try:
                wait_until_ready(gateway, f"http://127.0.0.1:{probes}/readyz")
                direct = f"http://127.0.0.1:{ports['completions']}/v1"
                yield Subject(f"http://127.0.0.1:{port}/v1", direct, gateway.pid)
            finally:
                gateway.terminate()
                gateway.wait(30)
    finally:
        peers.terminate()
        peers.wait(10)


def _write_files(folder: Path, ports: dict[str, int]) -> list[str]:
    """Write settings and kubeconfig; return the options that name them."""
    model = {"name": "curie", "uri": "s3://bench/curie", "contextLength": 2048}
    url = f"http://127.0.0.1:{ports['completions']}/v1"
    settings = folder / "settings.yaml"
    settings.write_text(
        yaml.safe_dump(
            {
                "namespace": NAMESPACE,
                "files": "s3://bench/files",
                "models": [{**model, "pretrainingLearningRate": 0.001}],
                "backends": [{"base": "curie", "url": url}],
            }
        )
    )
    kubeconfig = folder / "kubeconfig"
    cluster = {"server": f"http://127.0.0.1:{ports['api']}"}
    parts: dict[str, Any] = {
        "clusters": [{"name": "bench", "cluster": cluster}],
        "users": [{"name": "bench", "user": {"token": TOKEN}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        "current-context": "bench",
    }
    kubeconfig.write_text(yaml.safe_dump(parts))
    return ["--settings", str(settings), "--kubeconfig", str(kubeconfig)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until_ready(gateway: subprocess.Popen[bytes], url: str) -> None:
    """Wait for the readiness probe."""
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        if gateway.poll() is not None:
            sys.exit(f"the gateway ended with exit code {gateway.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit(f"the gateway is not ready after {READY_SECONDS:.0f} s")
